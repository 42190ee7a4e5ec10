#pragma once

#include <utility>

#include "graft/autograd/ops/shape.hpp"
#include "graft/autograd/ops/unfold.hpp"
#include "graft/layers/sites/linear_site.hpp"

namespace graft::inline v0_1 {

/// A convolution through a linear site over patches: x [batch, channels, spatial…] -> [batch, out,
/// positions…].
template <std::floating_point T>
BasicVar<T> convolution(const BasicLinearSite<T>& site, const BasicVar<T>& x,
                        const ConvOptions& options);

/// The weight of a grouped convolution [out, in / groups, kernel…] as a matrix [out, in · ∏
/// kernel], zero between groups. @throws ShapeError if the groups do not divide out.
template <std::floating_point T>
BasicTensor<T> ungrouped_weight(const BasicTensor<T>& weight, Index groups);

/// The inverse of `ungrouped_weight`: the blocks of the groups, [out, in / groups · ∏ kernel].
template <std::floating_point T>
BasicTensor<T> grouped_weight(const BasicTensor<T>& full, Index groups);

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/layers/impl/conv_impl.hpp"
#endif
