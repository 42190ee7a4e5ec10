#pragma once

#include "graft/autograd/ops/common.hpp"
#include "graft/kernels/gemm.hpp"

namespace graft::inline v0_1 {

/// Whether an operand of a product is read transposed (its last two axes swapped).
enum class Transpose { no, yes };

/// op(a) op(b) for matrices, or for stacks of matrices with equal leading axes. A matrix and a
/// stack: the matrix is used for every one of the stack if it is `b`; a stack `a` (not transposed)
/// then counts as one tall matrix.
/// @throws ShapeError if the inner sizes or the leading axes differ.
template <std::floating_point T>
BasicVar<T> matmul(const BasicVar<T>& a, const BasicVar<T>& b, Transpose ta = Transpose::no,
                   Transpose tb = Transpose::no);

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/autograd/ops/impl/matmul_impl.hpp"
#endif
