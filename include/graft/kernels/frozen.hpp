#pragma once

#include "graft/kernels/frozen_weight.hpp"
#include "graft/kernels/isa.hpp"
#include "graft/kernels/packed_weights.hpp"

namespace graft::inline v0_1::kernels {

/// True if products with Compute::bf16 run faster than those in f32 with the active instruction
/// set: those by AMX tiles do, and bf16 dot products of vectors do on AMD's cores (twice the rate);
/// on Intel's cores the latter have half the rate of f32.
GRAFT_KERNEL bool bf16_is_fast();

/// True if Compute::f32_split is done by tiles with the active instruction set, else it is f32.
inline bool splits_f32() { return active_isa() >= Isa::amx; }

/// y (+)= x Wᵀ + bias + H P for a frozen W.
///
/// x is m × in (rows ldx apart), y is m × out (rows ldy apart), bias has `out` values or is null. H
/// is m × rank and P is rank × out: the term is added to each tile while it is in registers. With
/// `accumulate`, y is added to. y must not overlap an operand. Sizes are not checked. The result
/// does not depend on the number of threads.
///
/// With Compute::bf16, x and W are rounded to bf16 as they are packed; bias, H P and all sums stay
/// in f32. Forward products of a few rows (up to 24, with AMX tiles 15), which memory bounds, run
/// in f32 all the same. Those of up to 8 rows with blocks that have `dot_int8` round x to 8 bits.
/// Tiles multiply H and P in split parts (see Compute), and take denormal numbers for zero.
GRAFT_KERNEL void frozen_forward(const FrozenWeight& w, const float* x, Index m, Index ldx,
                                 const float* bias, float* y, Index ldy, bool accumulate = false,
                                 const LowRankTerm* low_rank = nullptr,
                                 Compute compute = Compute::f32);

/// One of several products with the same x.
struct FrozenPart {
  FrozenWeight w;
  const float* bias = nullptr;  ///< or null
  float* y = nullptr;
  Index ldy = 0;
};

/// y_p = x W_pᵀ + bias_p for `count` weights W_p with the same number of inputs, as frozen_forward
/// gives them. Where all have `dot_int8` and x few rows, x is rounded once and all are one loop of
/// the thread pool.
GRAFT_KERNEL void frozen_forward_each(const FrozenPart* parts, Index count, const float* x, Index m,
                                      Index ldx, Compute compute = Compute::f32);

/// dx (+)= dy W + H P, with H (m × rank) and P (rank × in).
GRAFT_KERNEL void frozen_backward_input(const FrozenWeight& w, const float* dy, Index m, Index lddy,
                                        float* dx, Index lddx, bool accumulate,
                                        const LowRankTerm* low_rank = nullptr,
                                        Compute compute = Compute::f32);

/// The same in double precision, by plain loops.
GRAFT_KERNEL void frozen_forward(const FrozenWeightDouble& w, const double* x, Index m, Index ldx,
                                 const double* bias, double* y, Index ldy, bool accumulate = false,
                                 const LowRankTermT<double>* low_rank = nullptr);
GRAFT_KERNEL void frozen_backward_input(const FrozenWeightDouble& w, const double* dy, Index m,
                                        Index lddy, double* dx, Index lddx, bool accumulate,
                                        const LowRankTermT<double>* low_rank = nullptr);

}  // namespace graft::inline v0_1::kernels

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/kernels/impl/frozen_impl.hpp"
#endif
