#pragma once

#include "graft/autograd/ops/common.hpp"
#include "graft/autograd/ops/matmul.hpp"

namespace graft::inline v0_1 {

/// Block-diagonal product: column block n of y is column block n of x times op(w_n).
/// x: [..., k · p], w: [k, p, q] (or [k, q, p] with `yes`), result [..., k · q].
/// @throws ShapeError if the sizes do not fit.
template <std::floating_point T>
BasicVar<T> block_matmul(const BasicVar<T>& x, const BasicVar<T>& w,
                         Transpose transposed = Transpose::no);

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/autograd/ops/impl/block_matmul_impl.hpp"
#endif
