#pragma once

#include <cmath>

#include "graft/quant/int8.hpp"

namespace graft::inline v0_1::quant {

GRAFT_KERNEL Int8Matrix encode_int8(std::span<const float> values, Index rows, Index columns) {
  if (rows < 0 || columns < 0 || (columns != 0 && rows != std::ssize(values) / columns) ||
      rows * columns != std::ssize(values)) {
    throw ShapeError(
        concat("encode_int8: expected ", rows, " x ", columns, " values, got ", values.size()));
  }
  Int8Matrix matrix{.rows = rows, .columns = columns, .codes = {}, .scales = {}};
  matrix.codes.resize(values.size());
  for (Index r = 0; r < rows; ++r) {
    const auto row =
        values.subspan(static_cast<std::size_t>(r * columns), static_cast<std::size_t>(columns));
    float largest = 0.0F;
    for (const float value : row) {
      if (!std::isfinite(value))
        throw ValueError(concat("encode_int8: row ", r, " holds a value that is not finite"));
      largest = std::max(largest, std::abs(value));
    }
    const float factor = largest == 0.0F ? 0.0F : 127.0F / largest;
    matrix.scales.push_back(largest == 0.0F ? 1.0F : largest / 127.0F);
    for (Index c = 0; c < columns; ++c) {
      // Where 127 / largest overflows, the values are tiny and the division itself does not.
      const float scaled = std::isfinite(factor)
                               ? row[static_cast<std::size_t>(c)] * factor
                               : row[static_cast<std::size_t>(c)] / largest * 127.0F;
      matrix.codes[static_cast<std::size_t>(r * columns + c)] =
          static_cast<std::int8_t>(std::nearbyint(scaled));
    }
  }
  return matrix;
}

GRAFT_KERNEL void decode_int8_row(const Int8Matrix& matrix, Index row, Index first, Index count,
                                  float* out) noexcept {
  const std::int8_t* const codes = matrix.codes.data() + row * matrix.columns + first;
  const float scale = matrix.scales[static_cast<std::size_t>(row)];
  for (Index i = 0; i < count; ++i) out[i] = scale * static_cast<float>(codes[i]);
}

GRAFT_KERNEL std::vector<float> decode_int8(const Int8Matrix& matrix) {
  std::vector<float> values(matrix.codes.size());
  for (Index r = 0; r < matrix.rows; ++r) {
    decode_int8_row(matrix, r, 0, matrix.columns, values.data() + r * matrix.columns);
  }
  return values;
}

GRAFT_KERNEL Int8Merge merge_int8(const Int8Matrix& matrix, std::span<const float> delta) {
  if (std::ssize(delta) != std::ssize(matrix.codes))
    throw ShapeError(
        concat("merge_int8: expected ", matrix.codes.size(), " values, got ", delta.size()));
  const auto base = decode_int8(matrix);
  Int8Merge result;
  result.merged.resize(base.size());
  for (std::size_t i = 0; i < base.size(); ++i) result.merged[i] = base[i] + delta[i];
  result.matrix = encode_int8(result.merged, matrix.rows, matrix.columns);
  const auto after = decode_int8(result.matrix);
  double error = 0, size = 0;
  for (std::size_t i = 0; i < base.size(); ++i) {
    const double d = static_cast<double>(after[i]) - static_cast<double>(result.merged[i]);
    error += d * d;
    size += static_cast<double>(base[i]) * static_cast<double>(base[i]);
  }
  result.relative_error = size > 0 ? std::sqrt(error / size) : 0;
  return result;
}

}  // namespace graft::inline v0_1::quant
