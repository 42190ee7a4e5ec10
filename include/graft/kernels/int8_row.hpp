#pragma once

#include <cstdint>

#include "graft/kernels/isa.hpp"

namespace graft::inline v0_1::kernels {

/// Values of a row that share a scale.
inline constexpr Index kInt8Block = 32;
/// Rows up to which products take them in 8 bits.
inline constexpr Index kMaxInt8Rows = 8;

/// Rounds a row of n values (a multiple of kInt8Block) to 8 bits: x_l ≈ s_b q_l for block b = l /
/// 32 with s_b = max |x| / 127 of the block and q_l = x_l / s_b rounded to the nearest integer,
/// half to even. The error of a value is at most s_b / 2 (and its last bit).
///
/// codes[l] = q_l; pairs[2 b] = s_b, pairs[2 b + 1] = s_b Σ q_l over the block. A block with an
/// infinite or NaN value has a NaN scale; values of a block whose largest magnitude is below 1e-30
/// become zero. Every instruction set gives the same bits.
GRAFT_KERNEL void quantise_int8_row(const float* x, Index n, std::int8_t* codes, float* pairs);

/// y_j = Σ_l (s_b q_l) w_jl for `count` stored rows w_j of `in` values, row_bytes bytes apart, and
/// one row from quantise_int8_row. Products of codes are summed exactly within a block of w, blocks
/// in f32; a sum does not depend on `count`.
using DotInt8Rows = void (*)(const void* rows, Index row_bytes, Index count, Index in,
                             const std::int8_t* codes, const float* pairs, float* y);

}  // namespace graft::inline v0_1::kernels

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/kernels/impl/int8_row_impl.hpp"
#endif
