#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "graft/base/error.hpp"
#include "graft/base/types.hpp"
#include "graft/config.hpp"

namespace graft::inline v0_1::quant {

/// The 16 values of a 4-bit code.
enum class CodeBook {
  nf4,  ///< quantiles of the normal distribution, scaled to [−1, 1]
  fp4   ///< sign, 2 exponent bits, 1 fraction bit, scaled to [−1, 1]; codes 0 and 8 are both zero
};

/// Value of each code, in [−1, 1].
GRAFT_KERNEL const std::array<float, 16>& code_values(CodeBook book);

/// The 256 values of the 8-bit code for scales, ascending: for i = 0 … 6, the 2^i midpoints of an
/// even partition of [0.1, 1] times 10^(i−6), with both signs, and 0 and 1.
GRAFT_KERNEL const std::array<float, 256>& dynamic_code_values();

struct Code4Options {
  CodeBook book = CodeBook::nf4;
  Index block = 64;               ///< values that share a scale; even
  bool double_quantised = false;  ///< the scales are stored in 8 bits, in groups …
  Index scale_group = 256;        ///< … of so many
};

/// A row-major array in 4 bits a value. Blocks run over the flattened array, across rows; the last
/// may be short.
///
///     value[i] = code_values[code[i]] · scale[i / block]
///     scale[j] = dynamic_code_values[scale_codes[j]] · scale_scales[j / scale_group] +
///     scale_offset (double quantisation)
///
/// Bits a value at block 64: 4.5, or 4.127 with double quantisation. Source: QLoRA (Dettmers et al.
/// 2023), §3.
struct Code4Array {
  CodeBook book = CodeBook::nf4;
  Index block = 64;
  Index size = 0;
  std::vector<std::uint8_t> codes;  ///< two a byte, the first in the high nibble
  std::vector<float> scales;  ///< largest magnitude of each block; empty with double quantisation
  std::vector<std::uint8_t> scale_codes;
  std::vector<float> scale_scales;
  float scale_offset = 0.0F;
  Index scale_group = 256;

  bool is_double_quantised() const { return !scale_codes.empty(); }
  Index blocks() const { return (size + block - 1) / block; }
  Index bytes() const {
    return std::ssize(codes) + std::ssize(scale_codes) +
           static_cast<Index>(sizeof(float)) *
               (std::ssize(scales) + std::ssize(scale_scales) + (is_double_quantised() ? 1 : 0));
  }
  float scale(Index j) const {
    if (!is_double_quantised()) return scales[static_cast<std::size_t>(j)];
    return dynamic_code_values()[scale_codes[static_cast<std::size_t>(j)]] *
               scale_scales[static_cast<std::size_t>(j / scale_group)] +
           scale_offset;
  }
};

namespace detail {

/// Index of the entry of an ascending table that is nearest to x, the lower one of two equally
/// near.
template <std::size_t Size>
std::size_t nearest(const std::array<float, Size>& table, float x) {
  const auto above =
      static_cast<std::size_t>(std::lower_bound(table.begin(), table.end(), x) - table.begin());
  if (above == 0) return 0;
  if (above == Size) return Size - 1;
  return x - table[above - 1] <= table[above] - x ? above - 1 : above;
}

/// A code book in ascending order, with the code of each entry.
struct SortedCodes {
  explicit SortedCodes(CodeBook book);
  std::array<float, 16> values{};
  std::array<std::uint8_t, 16> codes{};
};

GRAFT_KERNEL float largest_magnitude(std::span<const float> values);

}  // namespace detail

/// Encodes an array: each block is divided by its largest magnitude, each value becomes the nearest
/// code (the lower one of two equally near). Errors: ValueError for an odd or non-positive block or
/// a group of less than one scale.
GRAFT_KERNEL Code4Array encode_4bit(std::span<const float> values, Code4Options options = {});

/// Writes the values first … first + out.size() − 1. Errors: ValueError when they leave the array.
GRAFT_KERNEL void decode_4bit(const Code4Array& array, Index first, std::span<float> out);

/// All values.
GRAFT_KERNEL std::vector<float> decode_4bit(const Code4Array& array);

}  // namespace graft::inline v0_1::quant

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/quant/impl/nf4_impl.hpp"
#endif
