#pragma once

#include "graft/kernels/isa.hpp"

namespace graft::inline v0_1::kernels {

/// C = alpha · op(A) op(B) + beta · C.
///
/// op(A) is m × k and op(B) is k × n; op transposes where trans_a or trans_b is set. All matrices
/// are row-major; lda, ldb, ldc are the distances between stored rows. Where beta is 0, C is only
/// written; where alpha is 0 or k is 0, A and B are not read. C must not overlap A or B. Sizes are
/// not checked. The result does not depend on the number of threads.
GRAFT_KERNEL void gemm(bool trans_a, bool trans_b, Index m, Index n, Index k, float alpha,
                       const float* a, Index lda, const float* b, Index ldb, float beta, float* c,
                       Index ldc);

/// dh = alpha · dy B and db = dyᵀ h + beta · db, with dy read once: the gradients of the product
/// y = alpha · h Bᵀ of few columns, but db without alpha.
///
/// dy: [m, n], rows at distance ldy; h, dh: [m, rank]; b, db: [n, rank], all contiguous. Where beta
/// is 0, db is only written. The result does not depend on the number of threads.
GRAFT_KERNEL void low_rank_gradients(Index m, Index n, Index rank, float alpha, const float* dy,
                                     Index ldy, const float* b, const float* h, float* dh,
                                     float beta, float* db);
GRAFT_KERNEL void low_rank_gradients(Index m, Index n, Index rank, double alpha, const double* dy,
                                     Index ldy, const double* b, const double* h, double* dh,
                                     double beta, double* db);

/// gemm in double precision; a plain blocked loop, for gradient checks and references.
GRAFT_KERNEL void gemm(bool trans_a, bool trans_b, Index m, Index n, Index k, double alpha,
                       const double* a, Index lda, const double* b, Index ldb, double beta,
                       double* c, Index ldc);

}  // namespace graft::inline v0_1::kernels

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/kernels/impl/gemm_impl.hpp"
#endif
