#pragma once

#include "graft/autograd/ops/common.hpp"
#include "graft/autograd/ops/matmul.hpp"

namespace graft::inline v0_1 {

/// y = x Wᵀ that keeps only a compressed x for the gradient of W.
///
/// A row of x is cut into `groups` pieces of p = length of v elements (the last one padded with
/// zeros) and each piece c is replaced by v (v · c) · factor where dW is computed. dx is exact.
/// Memory: groups elements a row in place of all. x: [..., in], w: [out, in], v: [p], p = ⌈in /
/// groups⌉. @throws ShapeError if the sizes do not fit.
template <std::floating_point T>
BasicVar<T> compressed_matmul(const BasicVar<T>& x, const BasicVar<T>& w, const BasicTensor<T>& v,
                              Index groups, std::type_identity_t<T> factor);

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/autograd/ops/impl/compressed_matmul_impl.hpp"
#endif
