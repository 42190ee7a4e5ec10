#pragma once

#include "graft/base/types.hpp"
#include "graft/kernels/int8_row.hpp"

namespace graft::inline v0_1::kernels {

class PackedWeights;

/// How the elements of a product are rounded before they are multiplied; sums are always f32.
///
/// f32_split: each value is the sum of two bf16 values, x = x₁ + x₂ to within 2⁻¹⁷ |x|, and a
/// product takes three bf16 ones, x₁ w₁ + x₁ w₂ + x₂ w₁: within 2⁻¹⁵ |x| |w| at worst, a few 10⁻⁶
/// of a result as a rule. Infinite values give NaN. That pays with AMX tiles; without them such a
/// product is one in f32.
enum class Compute { f32, bf16, f32_split };

/// Decodes `count` values of one stored row, from column `first` (0 or a multiple of the weight's
/// decode_step), as f32 to `out`.
using DecodeRow = void (*)(const void* row, Index first, Index count, float* out);

/// Decodes a panel, [count][32], from 32 rows that lie row_bytes bytes apart: values first … first
/// + count, value l of row r to to[32 l + r]. `first` and `count` are multiples of 32.
using DecodePanel = void (*)(const void* rows, Index row_bytes, Index first, Index count,
                             float* to);

/// Decodes a panel, [count][32], from `count` rows that lie row_bytes bytes apart: values first …
/// first + 32, value l of row r to to[32 r + l]. `first` is a multiple of 32.
using DecodeColumns = void (*)(const void* rows, Index row_bytes, Index first, Index count,
                               float* to);

/// y_ij = Σ_l x_il w_jl for `count` stored rows w_j of `in` values, row_bytes bytes apart, and m
/// rows of x (rows ldx apart; those of y ldy apart). Sums are in f32 and one of them does not
/// depend on `count`. Columns and rows are few enough for y to stay in a cache.
using DotRows = void (*)(const void* rows, Index row_bytes, Index count, Index in, const float* x,
                         Index m, Index ldx, float* y, Index ldy);

/// A frozen weight W (out × in), in one or more of three forms; it owns nothing.
///
/// Give `dense` (f32 rows, row_stride floats apart), or `blocks` (rows of row_bytes bytes that
/// `decode` turns to f32, `decode_panel` and `decode_columns`, unless null, a panel of values of 32
/// rows or of 32 values of rows at once, and that `dot`, unless null, multiplies with few rows;
/// `dot_int8`, unless null, does that instead, with the rows rounded to 8 bits, and goes before
/// `packed`), or `packed`. If several are given they must hold the same values, and each product
/// takes the one that suits it best.
struct FrozenWeight {
  Index out = 0, in = 0;
  const float* dense = nullptr;
  Index row_stride = 0;
  const void* blocks = nullptr;
  Index row_bytes = 0;
  Index decode_step = 256;  ///< a divisor of 256 and a multiple of 32
  DecodeRow decode = nullptr;
  DecodePanel decode_panel = nullptr;
  DecodeColumns decode_columns = nullptr;
  DotRows dot = nullptr;
  DotInt8Rows dot_int8 = nullptr;
  const PackedWeights* packed = nullptr;
};

/// A frozen weight in double precision, for references and gradient checks: dense rows only.
struct FrozenWeightDouble {
  Index out = 0, in = 0;
  const double* dense = nullptr;
  Index row_stride = 0;
};

/// The term H P that is added to a product: H (m × rank), P (rank × n), both row-major.
template <class T>
struct LowRankTermT {
  const T* h = nullptr;
  Index ldh = 0;
  const T* p = nullptr;
  Index ldp = 0;
  Index rank = 0;
};
using LowRankTerm = LowRankTermT<float>;

}  // namespace graft::inline v0_1::kernels
