#pragma once

#include <concepts>
#include <memory>
#include <type_traits>
#include <utility>

#include "graft/kernels/frozen_weight.hpp"
#include "graft/layers/linear.hpp"
#include "graft/layers/low_rank_product.hpp"

namespace graft::inline v0_1 {

/// Any frozen layer behind one type. A handle: copies share the layer.
///
/// Made from a layer by value (graft's own layers are handles themselves) or from a
/// `std::shared_ptr` to one.
template <std::floating_point T>
class BasicAnyLinear {
 public:
  using Scalar = T;

  BasicAnyLinear() = default;
  template <FrozenLinear L>
    requires(!std::is_same_v<std::remove_cvref_t<L>, BasicAnyLinear> &&
             std::is_same_v<ScalarOf<L>, T>)
  BasicAnyLinear(L layer) : BasicAnyLinear(std::make_shared<const L>(std::move(layer))) {}
  template <FrozenLinear L>
    requires std::is_same_v<ScalarOf<L>, T>
  BasicAnyLinear(std::shared_ptr<const L> layer)
      : impl_(std::make_shared<const Model<L>>(std::move(layer))) {}

  explicit operator bool() const { return impl_ != nullptr; }
  Index in_features() const { return impl_->in_features(); }
  Index out_features() const { return impl_->out_features(); }
  void forward(MatrixView<const T> x, MatrixView<T> y,
               const LowRankProduct<T>* term = nullptr) const {
    impl_->forward(x, y, term);
  }
  void backward_input(MatrixView<const T> dy, MatrixView<T> dx,
                      const LowRankProduct<T>* term = nullptr, bool accumulate = true) const {
    impl_->backward_input(dy, dx, term, accumulate);
  }
  /// W as a matrix [out, in]: shared where the layer holds it so, else written out.
  BasicTensor<T> dense_weight() const { return impl_->dense_weight(); }
  void write_weight(Index first, MatrixView<T> rows) const { impl_->write_weight(first, rows); }
  BasicTensor<T> bias() const { return impl_->bias(); }
  /// The weight as kernels take it, for products with several layers at once; an empty one where
  /// the layer has no `frozen_weight()`. A layer that has one promises that its forward product is
  /// x Wᵀ + bias.
  kernels::FrozenWeight frozen_weight() const { return impl_->frozen_weight(); }
  /// Tells one layer from another, also after one of them is gone.
  std::weak_ptr<const void> identity() const { return impl_; }
  /// The layer itself if it is an L, else null.
  template <class L>
  const L* as() const {
    const auto* model = dynamic_cast<const Model<L>*>(impl_.get());
    return model == nullptr ? nullptr : model->layer.get();
  }

 private:
  struct Interface {
    virtual ~Interface() = default;
    virtual Index in_features() const = 0;
    virtual Index out_features() const = 0;
    virtual void forward(MatrixView<const T>, MatrixView<T>, const LowRankProduct<T>*) const = 0;
    virtual void backward_input(MatrixView<const T>, MatrixView<T>, const LowRankProduct<T>*,
                                bool) const = 0;
    virtual BasicTensor<T> dense_weight() const = 0;
    virtual void write_weight(Index, MatrixView<T>) const = 0;
    virtual BasicTensor<T> bias() const = 0;
    virtual kernels::FrozenWeight frozen_weight() const = 0;
  };
  template <class L>
  struct Model final : Interface {
    explicit Model(std::shared_ptr<const L> l) : layer(std::move(l)) {}
    Index in_features() const override { return layer->in_features(); }
    Index out_features() const override { return layer->out_features(); }
    void forward(MatrixView<const T> x, MatrixView<T> y,
                 const LowRankProduct<T>* term) const override {
      if constexpr (FusesLowRank<L>) {
        layer->forward(x, y, term);
      } else {
        layer->forward(x, y);
        detail::add_low_rank(term, y);
      }
    }
    void backward_input(MatrixView<const T> dy, MatrixView<T> dx, const LowRankProduct<T>* term,
                        bool accumulate) const override {
      if constexpr (FusesLowRank<L>) {
        layer->backward_input(dy, dx, term, accumulate);
      } else {
        if (!accumulate)
          for (Index i = 0; i < dx.rows(); ++i) std::fill_n(dx.row(i), dx.cols(), T{0});
        layer->backward_input(dy, dx);
        detail::add_low_rank(term, dx);
      }
    }
    BasicTensor<T> dense_weight() const override { return weight_of(*layer); }
    void write_weight(Index first, MatrixView<T> rows) const override {
      if constexpr (DenseWeights<L>) {
        layer->write_weight(first, rows);
      } else {
        const auto w = weight_of(*layer);
        for (Index i = 0; i < rows.rows(); ++i)
          std::copy_n(w.data() + (first + i) * w.cols(), w.cols(), rows.row(i));
      }
    }
    BasicTensor<T> bias() const override { return bias_of(*layer); }
    kernels::FrozenWeight frozen_weight() const override {
      if constexpr (requires {
                      { layer->frozen_weight() } -> std::same_as<kernels::FrozenWeight>;
                    })
        return layer->frozen_weight();
      else
        return {};
    }
    std::shared_ptr<const L> layer;
  };

  std::shared_ptr<const Interface> impl_;
};

using AnyLinear = BasicAnyLinear<float>;

}  // namespace graft::inline v0_1
