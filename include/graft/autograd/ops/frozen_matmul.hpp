#pragma once

#include "graft/autograd/ops/common.hpp"
#include "graft/autograd/ops/matmul.hpp"

namespace graft::inline v0_1 {

/// x op(M) with M the upper left [rows, cols] of a constant matrix, read where it lies: layers of
/// different sizes share one projection. x: [..., rows] (or [..., cols] with M transposed).
/// @throws ShapeError if the sizes do not fit.
template <std::floating_point T>
BasicVar<T> frozen_matmul(const BasicVar<T>& x, const BasicTensor<T>& matrix, Index rows,
                          Index cols, Transpose transposed = Transpose::no);

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/autograd/ops/impl/frozen_matmul_impl.hpp"
#endif
