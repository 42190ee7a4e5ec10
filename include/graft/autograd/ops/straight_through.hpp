#pragma once

#include "graft/autograd/ops/elementwise.hpp"

/// Roundings and masks with straight-through gradients.
namespace graft::inline v0_1 {

/// x rounded to whole numbers, half to even; the gradient passes unchanged.
template <std::floating_point T>
BasicVar<T> straight_through_round(const BasicVar<T>& x);

/// x limited to [low, high]; the gradient passes unchanged. `clamp` has the gradient of the limits.
template <std::floating_point T>
BasicVar<T> straight_through_clamp(const BasicVar<T>& x, std::type_identity_t<T> low,
                                   std::type_identity_t<T> high);

/// 1 where x > threshold, else 0; the gradient passes unchanged.
template <std::floating_point T>
BasicVar<T> straight_through_above(const BasicVar<T>& x, std::type_identity_t<T> threshold);

/// 0 at the `count` smallest elements, of equal ones at the first, else 1; the gradient passes
/// unchanged.
template <std::floating_point T>
BasicVar<T> straight_through_without_smallest(const BasicVar<T>& x, Index count);

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/autograd/ops/impl/straight_through_impl.hpp"
#endif
