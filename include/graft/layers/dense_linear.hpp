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
  explicit BasicDenseLinear(BasicTensor<T> weight, BasicTensor<T> bias = {});
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
  BasicTensor<T> dense_weight() const;

  void forward(MatrixView<const T> x, MatrixView<T> y,
               const LowRankProduct<T>* term = nullptr) const;
  /// dx = dy W + term, or dx += it.
  void backward_input(MatrixView<const T> dy, MatrixView<T> dx,
                      const LowRankProduct<T>* term = nullptr, bool accumulate = true) const;

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
    requires std::is_same_v<T, float>;

 private:
  void check_bias() const {
    if (bias_ && bias_.size() != out_features())
      throw ShapeError(
          concat("DenseLinear: bias ", bias_.shape().text(), ", expected [", out_features(), "]"));
  }
  kernels::FrozenWeight frozen() const
    requires std::is_same_v<T, float>;
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

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/layers/impl/dense_linear_impl.hpp"
#endif
