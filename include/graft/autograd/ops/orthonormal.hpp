#pragma once

#include "graft/autograd/ops/common.hpp"
#include "graft/kernels/gemm.hpp"
#include "graft/tensor/decompositions.hpp"

namespace graft::inline v0_1 {

/// Q of A = Q R, the signs as LAPACK's Householder QR gives them. a: [m, n] with m ≥ n, result [m,
/// n].
///
/// With M = −Qᵀ dQ and S the symmetric matrix with the upper triangle of M: dA = (dQ + Q S) R⁻ᵀ.
/// Source: Liao et al. 2019 (arXiv:1903.09650), the rule for QR.
/// @throws ShapeError if a is no matrix or wider than tall.
template <std::floating_point T>
BasicVar<T> orthonormal(const BasicVar<T>& a);

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/autograd/ops/impl/orthonormal_impl.hpp"
#endif
