#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "graft/base/error.hpp"
#include "graft/base/types.hpp"

namespace graft::inline v0_1::quant {

/// The 16 values of a 4-bit code.
enum class CodeBook {
  nf4,  ///< quantiles of the normal distribution, scaled to [−1, 1]
  fp4   ///< sign, 2 exponent bits, 1 fraction bit, scaled to [−1, 1]; codes 0 and 8 are both zero
};

/// Value of each code, in [−1, 1].
inline const std::array<float, 16>& code_values(CodeBook book) {
  static constexpr std::array<float, 16> kNf4{
      -1.0F,         -0.69619280F, -0.52507305F, -0.39491749F, -0.28444138F, -0.18477343F,
      -0.091050036F, 0.0F,         0.0795803F,   0.1609302F,   0.2461123F,   0.33791524F,
      0.44070983F,   0.562617F,    0.72295684F,  1.0F};
  // The magnitudes of E2M1 over its largest one, as the reference rounds and orders them.
  static constexpr std::array<float, 16> kFp4{
      0.0F, 0.0052083333F,  0.6666667F,  1.0F,  0.33333333F,  0.5F,  0.16666667F,  0.25F,
      0.0F, -0.0052083333F, -0.6666667F, -1.0F, -0.33333333F, -0.5F, -0.16666667F, -0.25F};
  return book == CodeBook::nf4 ? kNf4 : kFp4;
}

/// The 256 values of the 8-bit code for scales, ascending: for i = 0 … 6, the 2^i midpoints of an
/// even partition of [0.1, 1] times 10^(i−6), with both signs, and 0 and 1.
inline const std::array<float, 256>& dynamic_code_values() {
  static const std::array<float, 256> table = [] {
    std::array<float, 256> values{};
    std::size_t count = 0;
    for (int i = 0; i < 7; ++i) {
      const int parts = 1 << i;
      // f32 roundings as the reference makes them: of the step, of each boundary (counted from the
      // nearer end), of the midpoint and of the power of ten.
      const auto step = static_cast<double>((1.0F - 0.1F) / static_cast<float>(parts));
      const auto boundary = [&](int k) {
        return static_cast<float>(k < (parts + 1) / 2 ? static_cast<double>(0.1F) + step * k
                                                      : 1.0 - step * (parts - k));
      };
      const auto power = static_cast<float>(std::pow(10.0, i - 6));
      for (int part = 0; part < parts; ++part) {
        const float value = (boundary(part) + boundary(part + 1)) / 2.0F * power;
        values[count++] = value;
        values[count++] = -value;
      }
    }
    values[count++] = 0.0F;
    values[count] = 1.0F;
    std::sort(values.begin(), values.end());
    return values;
  }();
  return table;
}

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
  explicit SortedCodes(CodeBook book) {
    const auto& table = code_values(book);
    for (std::size_t i = 0; i < 16; ++i) codes[i] = static_cast<std::uint8_t>(i);
    std::sort(codes.begin(), codes.end(), [&](std::uint8_t a, std::uint8_t b) {
      return table[a] != table[b] ? table[a] < table[b] : a < b;
    });
    for (std::size_t i = 0; i < 16; ++i) values[i] = table[codes[i]];
  }
  std::array<float, 16> values{};
  std::array<std::uint8_t, 16> codes{};
};

inline float largest_magnitude(std::span<const float> values) {
  float largest = 0.0F;
  for (const float value : values) largest = std::max(largest, std::abs(value));
  return largest;
}

}  // namespace detail

/// Encodes an array: each block is divided by its largest magnitude, each value becomes the nearest
/// code (the lower one of two equally near). Errors: ValueError for an odd or non-positive block or
/// a group of less than one scale.
inline Code4Array encode_4bit(std::span<const float> values, Code4Options options = {}) {
  if (options.block <= 0 || options.block % 2 != 0) {
    throw ValueError(concat("encode_4bit: block must be positive and even, got ", options.block));
  }
  if (options.scale_group < 1)
    throw ValueError(concat("encode_4bit: groups of ", options.scale_group, " scales"));
  const detail::SortedCodes sorted(options.book);
  Code4Array array;
  array.book = options.book;
  array.block = options.block;
  array.scale_group = options.scale_group;
  array.size = std::ssize(values);
  array.codes.resize((values.size() + 1) / 2);
  array.scales.reserve(static_cast<std::size_t>(array.blocks()));
  const auto block = static_cast<std::size_t>(options.block);
  for (std::size_t first = 0; first < values.size(); first += block) {
    const auto part = values.subspan(first, std::min(block, values.size() - first));
    const float scale = detail::largest_magnitude(part);
    const float inverse = scale == 0.0F ? 0.0F : 1.0F / scale;
    array.scales.push_back(scale);
    for (std::size_t i = 0; i < part.size(); ++i) {
      const unsigned code = sorted.codes[detail::nearest(sorted.values, part[i] * inverse)];
      std::uint8_t& byte = array.codes[(first + i) / 2];
      byte = static_cast<std::uint8_t>(i % 2 == 0 ? code << 4 : byte | code);
    }
  }
  if (!options.double_quantised || values.empty()) return array;

  double sum = 0.0;
  for (const float scale : array.scales) sum += static_cast<double>(scale);
  array.scale_offset = static_cast<float>(sum / static_cast<double>(array.scales.size()));
  for (float& scale : array.scales) scale -= array.scale_offset;
  const auto scale_group = static_cast<std::size_t>(options.scale_group);
  for (std::size_t first = 0; first < array.scales.size(); first += scale_group) {
    const auto group =
        std::span(array.scales).subspan(first, std::min(scale_group, array.scales.size() - first));
    const float largest = detail::largest_magnitude(group);
    const float inverse = largest == 0.0F ? 0.0F : 1.0F / largest;
    array.scale_scales.push_back(largest);
    for (const float scale : group) {
      array.scale_codes.push_back(
          static_cast<std::uint8_t>(detail::nearest(dynamic_code_values(), scale * inverse)));
    }
  }
  array.scales = {};
  return array;
}

/// Writes the values first … first + out.size() − 1. Errors: ValueError when they leave the array.
inline void decode_4bit(const Code4Array& array, Index first, std::span<float> out) {
  if (first < 0 || first > array.size || std::ssize(out) > array.size - first) {
    throw ValueError(
        concat("decode_4bit: values ", first, " to ", first + std::ssize(out), " of ", array.size));
  }
  const auto& table = code_values(array.book);
  for (Index done = 0; done < std::ssize(out);) {
    const Index j = (first + done) / array.block;
    const Index end = std::min(std::ssize(out), (j + 1) * array.block - first);
    const float scale = array.scale(j);
    for (; done < end; ++done) {
      const auto position = static_cast<std::size_t>(first + done);
      const unsigned byte = array.codes[position / 2];
      out[static_cast<std::size_t>(done)] =
          table[position % 2 == 0 ? byte >> 4 : byte & 15U] * scale;
    }
  }
}

/// All values.
inline std::vector<float> decode_4bit(const Code4Array& array) {
  std::vector<float> values(static_cast<std::size_t>(array.size));
  decode_4bit(array, 0, values);
  return values;
}

}  // namespace graft::inline v0_1::quant
