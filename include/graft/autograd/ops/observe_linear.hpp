#pragma once

#include <functional>

#include "graft/autograd/ops/common.hpp"

namespace graft::inline v0_1 {

/// Sees the input [rows, in] and the output gradient [rows, out] of a linear layer in the backward
/// pass; dyᵀ x is the gradient of its weight.
template <std::floating_point T>
using LinearObserver = std::function<void(const BasicTensor<T>& x, const BasicTensor<T>& dy)>;

/// y itself; tells the observer x and dy when the gradient of y is known. Records even if nothing
/// below wants a gradient. Keeps x.
template <std::floating_point T>
BasicVar<T> observe_linear(const BasicVar<T>& y, const BasicVar<T>& x, LinearObserver<T> observer);

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/autograd/ops/impl/observe_linear_impl.hpp"
#endif
