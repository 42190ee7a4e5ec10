#pragma once

#include "graft/autograd/ops/common.hpp"

namespace graft::inline v0_1 {

/// The first r rows of H₁ H₂ … H_r with Hᵢ = I − 2 vᵢ vᵢᵀ / ‖vᵢ‖²: r orthonormal rows from r free
/// vectors. v: [r, d], r ≤ d, result [r, d]; O(r² d).
///
/// Backward, from the last reflection to the first, with P the rows before it and G the gradient
/// after it: dv = 4 (u · w) v / ‖v‖⁴ − 2 (Pᵀ w + Gᵀ u) / ‖v‖², u = P v, w = G v; then G ← G H.
/// @throws ShapeError for more rows than columns, ValueError for a vector that is zero.
template <std::floating_point T>
BasicVar<T> householder_rows(const BasicVar<T>& v);

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/autograd/ops/impl/householder_rows_impl.hpp"
#endif
