#pragma once

#include "graft/autograd/ops/common.hpp"

namespace graft::inline v0_1 {

/// Every row of a times every row of b, element by element: y[p · k + q, :] = a[p, :] ⊙ b[q, :] for
/// b of k rows. With it a Hadamard product of two low-rank matrices is a low-rank product again:
/// (B₁ A₁) ⊙ (B₂ A₂) = Y_Bᵀ Y_A. a: [m, n], b: [k, n], result [m k, n]. @throws ShapeError
template <std::floating_point T>
BasicVar<T> row_products(const BasicVar<T>& a, const BasicVar<T>& b);

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/autograd/ops/impl/row_products_impl.hpp"
#endif
