#pragma once

#include "graft/autograd/ops/common.hpp"

namespace graft::inline v0_1 {

/// y_p = c_p x_p + s_p x_{p'}, where p' is the element at the other half of p's group: p + group /
/// 2 in the first half, p − group / 2 in the second. One pass forward and one back. x: [..., n], c,
/// s: [n]; group: even, divides n. Keeps x. @throws ShapeError if the sizes do not fit.
template <std::floating_point T>
BasicVar<T> rotate_pairs(const BasicVar<T>& x, const BasicVar<T>& c, const BasicVar<T>& s,
                         Index group);

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/autograd/ops/impl/rotate_pairs_impl.hpp"
#endif
