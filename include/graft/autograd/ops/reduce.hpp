#pragma once

#include "graft/autograd/ops/common.hpp"
#include "graft/autograd/ops/elementwise.hpp"
#include "graft/autograd/ops/shape.hpp"

namespace graft::inline v0_1 {

/// Sum of all elements, a scalar.
template <std::floating_point T>
BasicVar<T> sum(const BasicVar<T>& x);

/// Mean of all elements, a scalar.
template <std::floating_point T>
BasicVar<T> mean(const BasicVar<T>& x) {
  return scale(sum(x), T{1} / static_cast<T>(x.size()));
}

/// Sum along one axis; the axis stays with size one if `keep`.
template <std::floating_point T>
BasicVar<T> sum_axis(const BasicVar<T>& x, int axis, bool keep = false);

/// Mean along one axis.
template <std::floating_point T>
BasicVar<T> mean_axis(const BasicVar<T>& x, int axis, bool keep = false) {
  return scale(sum_axis(x, axis, keep), T{1} / static_cast<T>(x.shape().dim(axis)));
}

/// Euclidean norm along the last axis, which stays with size one: y = sqrt(Σ x²). Its gradient at
/// zero is zero, as PyTorch has it.
template <std::floating_point T>
BasicVar<T> norm_last(const BasicVar<T>& x);

/// Frobenius norm of all elements, a scalar.
template <std::floating_point T>
BasicVar<T> norm(const BasicVar<T>& x) {
  return sqrt(sum(square(x)));
}

/// Softmax along the last axis.
template <std::floating_point T>
BasicVar<T> softmax(const BasicVar<T>& x);

/// log(Σ exp x) along the last axis, which stays with size one.
template <std::floating_point T>
BasicVar<T> log_sum_exp(const BasicVar<T>& x);

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/autograd/ops/impl/reduce_impl.hpp"
#endif
