#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "graft/base/error.hpp"
#include "graft/base/types.hpp"
#include "graft/config.hpp"

namespace graft::inline v0_1::quant {

/// A matrix in 8 bits a value with one scale a row: w[r, c] = scales[r] · codes[r, c].
/// Source: LLM.int8() (Dettmers et al. 2022), §2.1, vector-wise quantisation.
struct Int8Matrix {
  Index rows = 0;
  Index columns = 0;
  std::vector<std::int8_t> codes;  ///< row-major, −127 … 127
  std::vector<float> scales;       ///< largest magnitude of the row / 127; 1 for a row of zeros

  Index bytes() const {
    return std::ssize(codes) + std::ssize(scales) * static_cast<Index>(sizeof(float));
  }
};

/// Encodes a row-major matrix: code = w / scale, rounded half to even. The error of a value is at
/// most half a scale. Errors: ShapeError when the sizes do not fit, ValueError for a value that is
/// not finite.
GRAFT_KERNEL Int8Matrix encode_int8(std::span<const float> values, Index rows, Index columns);

/// Writes the values first … first + count − 1 of a row. Unchecked, for use inside of kernels.
GRAFT_KERNEL void decode_int8_row(const Int8Matrix& matrix, Index row, Index first, Index count,
                                  float* out) noexcept;

/// All values, row-major.
GRAFT_KERNEL std::vector<float> decode_int8(const Int8Matrix& matrix);

/// A quantised matrix with an update folded in.
struct Int8Merge {
  Int8Matrix matrix;
  std::vector<float> merged;  ///< W_q + Δ before it was encoded again
  double relative_error = 0;  ///< ‖Ŵ − (W_q + Δ)‖ / ‖W_q‖, Ŵ the new values
};
/// Decodes, adds `delta` (row-major) and encodes again, which is lossy. Errors: as encode_int8.
GRAFT_KERNEL Int8Merge merge_int8(const Int8Matrix& matrix, std::span<const float> delta);

}  // namespace graft::inline v0_1::quant

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/quant/impl/int8_impl.hpp"
#endif
