#pragma once

#include <memory>
#include <utility>

#include "graft/kernels/frozen.hpp"
#include "graft/layers/linear.hpp"
#include "graft/layers/low_rank_product.hpp"

namespace graft::inline v0_1 {

/// y = x Wᵀ + b with a dense frozen weight.
///
/// weight: [out_features, in_features] row-major, as torch stores it; bias: [out_features] or
/// empty. A handle: copies share the weight, and weights given as a view are borrowed, not copied;
/// that memory must outlive the layer.
template <std::floating_point T>
class BasicDenseLinear {
 public:
  using Scalar = T;

  BasicDenseLinear() = default;
  /// @throws ShapeError if weight is no matrix or bias does not have out_features elements.
  explicit BasicDenseLinear(BasicTensor<T> weight, BasicTensor<T> bias = {})
      : keep_(weight), view_(weight.matrix()), bias_(std::move(bias)) {
    if (weight.rank() != 2)
      throw ShapeError(
          concat("DenseLinear: weight ", weight.shape().text(), ", expected [out, in]"));
    check_bias();
  }
  /// Borrows a matrix with any row stride.
  explicit BasicDenseLinear(MatrixView<const T> weight, BasicTensor<T> bias = {})
      : view_(weight), bias_(std::move(bias)) {
    check_bias();
  }

  Index in_features() const { return view_.cols(); }
  Index out_features() const { return view_.rows(); }
  MatrixView<const T> weight() const { return view_; }
  const BasicTensor<T>& bias() const { return bias_; }
  void write_weight(Index first, MatrixView<T> rows) const {
    for (Index i = 0; i < rows.rows(); ++i)
      std::copy_n(view_.row(first + i), view_.cols(), rows.row(i));
  }
  /// W as a tensor; shares the elements if they are contiguous.
  BasicTensor<T> dense_weight() const {
    if (keep_) return keep_;
    if (view_.contiguous())
      return BasicTensor<T>::borrow(const_cast<T*>(view_.data()), {view_.rows(), view_.cols()});
    auto w = BasicTensor<T>::empty({view_.rows(), view_.cols()});
    write_weight(0, w.matrix());
    return w;
  }

  void forward(MatrixView<const T> x, MatrixView<T> y,
               const LowRankProduct<T>* term = nullptr) const {
    if constexpr (std::is_same_v<T, float>) {
      const auto low = detail::kernel_term(term);
      kernels::frozen_forward(frozen(), x.data(), x.rows(), x.row_stride(), bias_.data(), y.data(),
                              y.row_stride(), false, term ? &low : nullptr, compute_);
    } else {
      kernels::gemm(false, true, x.rows(), out_features(), in_features(), T{1}, x.data(),
                    x.row_stride(), view_.data(), view_.row_stride(), T{0}, y.data(),
                    y.row_stride());
      if (bias_)
        for (Index i = 0; i < y.rows(); ++i)
          for (Index j = 0; j < y.cols(); ++j) y(i, j) += bias_[j];
      detail::add_low_rank(term, y);
    }
  }
  /// dx = dy W + term, or dx += it.
  void backward_input(MatrixView<const T> dy, MatrixView<T> dx,
                      const LowRankProduct<T>* term = nullptr, bool accumulate = true) const {
    if constexpr (std::is_same_v<T, float>) {
      const auto low = detail::kernel_term(term);
      kernels::frozen_backward_input(frozen(), dy.data(), dy.rows(), dy.row_stride(), dx.data(),
                                     dx.row_stride(), accumulate, term ? &low : nullptr, compute_);
    } else {
      kernels::gemm(false, false, dy.rows(), in_features(), out_features(), T{1}, dy.data(),
                    dy.row_stride(), view_.data(), view_.row_stride(), accumulate ? T{1} : T{0},
                    dx.data(), dx.row_stride());
      detail::add_low_rank(term, dx);
    }
  }

  /// Copies the weight once more into the layout that the product kernels read, for speed (float
  /// only).
  void pack()
    requires std::is_same_v<T, float>
  {
    packed_ = std::make_shared<const kernels::PackedWeights>(frozen(), false, compute_);
  }

  /// How products with the layer round their factors (float only).
  kernels::Compute compute() const { return compute_; }
  /// The same layer, sharing the weight, that multiplies by `compute`; not packed.
  BasicDenseLinear with_compute(kernels::Compute compute) const
    requires std::is_same_v<T, float>
  {
    BasicDenseLinear layer = *this;
    layer.compute_ = compute;
    layer.packed_ = nullptr;
    return layer;
  }

 private:
  void check_bias() const {
    if (bias_ && bias_.size() != out_features())
      throw ShapeError(
          concat("DenseLinear: bias ", bias_.shape().text(), ", expected [", out_features(), "]"));
  }
  kernels::FrozenWeight frozen() const
    requires std::is_same_v<T, float>
  {
    kernels::FrozenWeight w;
    w.out = out_features();
    w.in = in_features();
    w.dense = view_.data();
    w.row_stride = view_.row_stride();
    w.packed = packed_.get();
    return w;
  }
  BasicTensor<T> keep_;
  MatrixView<const T> view_;
  BasicTensor<T> bias_;
  std::shared_ptr<const kernels::PackedWeights> packed_;
  kernels::Compute compute_ = kernels::Compute::f32;
};

template <std::floating_point T>
BasicDenseLinear(BasicTensor<T>, BasicTensor<T>) -> BasicDenseLinear<T>;

using DenseLinear = BasicDenseLinear<float>;

}  // namespace graft::inline v0_1
