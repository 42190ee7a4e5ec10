#pragma once

#include <utility>
#include <vector>

#include "graft/autograd/ops/common.hpp"

namespace graft::inline v0_1 {

/// y = g ⊙ (z − b) + b: every column scaled about its offset. z: [..., n], g: n elements, b: [n]
/// or empty (zero). Keeps y, which whoever reads it keeps too, unless a factor is so small that z
/// cannot be told from y.
/// @throws ShapeError if g or b do not have one element a column.
template <std::floating_point T>
BasicVar<T> rescale_columns(const BasicVar<T>& z, const BasicVar<T>& g,
                            const BasicTensor<T>& b = {});

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/autograd/ops/impl/rescale_columns_impl.hpp"
#endif
