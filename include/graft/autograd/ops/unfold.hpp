#pragma once

#include <vector>

#include "graft/autograd/ops/common.hpp"

namespace graft::inline v0_1 {

/// Kernel, stride, padding and dilation of a convolution by spatial axis, one to three of them.
struct ConvOptions {
  std::vector<Index> kernel;
  std::vector<Index> stride;
  std::vector<Index> padding;
  std::vector<Index> dilation;
};

/// Patches of x as rows: x [batch, channels, spatial…] -> [batch · positions, channels · ∏ kernel],
/// columns ordered as torch flattens a convolution's weight; places outside of x are zero.
/// `positions` receives the spatial sizes of the result.
/// @throws ShapeError if the axes do not fit or no position is left.
template <std::floating_point T>
BasicVar<T> unfold(const BasicVar<T>& x, const ConvOptions& options,
                   std::vector<Index>* positions = nullptr);

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/autograd/ops/impl/unfold_impl.hpp"
#endif
