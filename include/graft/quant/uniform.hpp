#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "graft/base/error.hpp"
#include "graft/base/types.hpp"
#include "graft/quant/half.hpp"

/// Quantisers with even steps and small float formats. Groups are runs of consecutive values of a
/// row-major array: a row, a part of a row, or all; the last may be short. Rounding is half to
/// even.
namespace graft::inline v0_1::quant {

/// Codes with one scale a group and, for affine codes, one zero point: value = scale · (code −
/// zero).
template <std::floating_point T>
struct UniformCodes {
  Index group = 0;
  std::vector<std::int16_t> codes;
  std::vector<T> scales;
  std::vector<std::int16_t> zeros;  ///< empty: symmetric

  /// The values that are left.
  std::vector<T> values() const {
    std::vector<T> result(codes.size());
    for (std::size_t i = 0; i < codes.size(); ++i) {
      const auto g = i / static_cast<std::size_t>(group);
      const int zero = zeros.empty() ? 0 : zeros[g];
      result[i] = scales[g] * static_cast<T>(codes[i] - zero);
    }
    return result;
  }
};

namespace detail {

/// Calls see(first value, values) for each group. @throws ValueError for numbers out of range
template <class T, class See>
void each_group(const char* operation, std::span<const T> values, Index bits, Index group,
                See&& see) {
  if (bits < 2 || bits > 8)
    throw ValueError(concat(operation, ": ", bits, " bits, expected 2 to 8"));
  if (group < 1) throw ValueError(concat(operation, ": groups of ", group));
  const auto size = static_cast<std::size_t>(group);
  for (std::size_t first = 0; first < values.size(); first += size)
    see(first, values.subspan(first, std::min(size, values.size() - first)));
}

}  // namespace detail

/// s = max |w| / (2^(bits−1) − 1), code = round(w / s) in ±(2^(bits−1) − 1); a group of zeros has
/// s = 1. The error is at most s / 2. @throws ValueError for bits outside of 2 … 8 or group < 1
template <std::floating_point T>
UniformCodes<T> quantise_symmetric(std::span<const T> values, Index bits, Index group) {
  UniformCodes<T> result{group, std::vector<std::int16_t>(values.size()), {}, {}};
  const T top = static_cast<T>((1 << (bits - 1)) - 1);
  detail::each_group(
      "quantise_symmetric", values, bits, group, [&](std::size_t first, std::span<const T> part) {
        T largest = 0;
        for (const T w : part) largest = std::max(largest, std::abs(w));
        const T s = largest > T{0} ? largest / top : T{1};
        result.scales.push_back(s);
        for (std::size_t i = 0; i < part.size(); ++i)
          result.codes[first + i] =
              static_cast<std::int16_t>(std::clamp(std::nearbyint(part[i] / s), -top, top));
      });
  return result;
}

/// s = (max − min) / (2^bits − 1) within [smallest, 1e4], z = −round(min / s) and code = round(w /
/// s) + z, both within [0, 2^bits − 1]. @throws ValueError for bits outside of 2 … 8 or group < 1
template <std::floating_point T>
UniformCodes<T> quantise_affine(std::span<const T> values, Index bits, Index group,
                                T smallest = static_cast<T>(1e-5)) {
  UniformCodes<T> result{group, std::vector<std::int16_t>(values.size()), {}, {}};
  const T top = static_cast<T>((1 << bits) - 1);
  detail::each_group(
      "quantise_affine", values, bits, group, [&](std::size_t first, std::span<const T> part) {
        const auto [low, high] = std::minmax_element(part.begin(), part.end());
        const T s = std::clamp((*high - *low) / top, smallest, static_cast<T>(1e4));
        const T z = std::clamp(-std::nearbyint(*low / s), T{0}, top);
        result.scales.push_back(s);
        result.zeros.push_back(static_cast<std::int16_t>(z));
        for (std::size_t i = 0; i < part.size(); ++i)
          result.codes[first + i] =
              static_cast<std::int16_t>(std::clamp(std::nearbyint(part[i] / s) + z, T{0}, top));
      });
  return result;
}

/// Formats of one byte: sign, exponent and fraction bits.
enum class Float8 {
  e4m3,  ///< up to 448
  e5m2   ///< up to 57344
};
constexpr double largest_value(Float8 format) { return format == Float8::e4m3 ? 448 : 57344; }

/// Value of a byte.
inline double float8_value(Float8 format, std::uint8_t byte) {
  return static_cast<double>(format == Float8::e4m3 ? f8_e4m3_to_f32(byte) : f8_e5m2_to_f32(byte));
}
/// The nearest byte, of two equally near ones that with an even fraction; values beyond the largest
/// become the largest.
inline std::uint8_t float8_byte(Float8 format, double value) {
  const int fraction_bits = format == Float8::e4m3 ? 3 : 2, bias = format == Float8::e4m3 ? 7 : 15;
  const double size = std::min(std::abs(value), largest_value(format));
  // size is in [2^exponent, 2^(exponent + 1)), or below the smallest binade.
  const int exponent = size > 0 ? std::max(std::ilogb(size), 1 - bias) : 1 - bias;
  // Steps of this binade; one that rounds up to the next lands on its first code.
  const auto steps = static_cast<int>(std::nearbyint(std::ldexp(size, fraction_bits - exponent)));
  const int code = ((exponent + bias - 1) << fraction_bits) + steps;
  return static_cast<std::uint8_t>(code | (std::signbit(value) ? 0x80 : 0));
}

/// Magnitudes of the float format of 4 bits, E2M1; its codes are the index, and 8 more for negative
/// ones.
inline constexpr std::array<double, 8> kE2M1Values{0, 0.5, 1, 1.5, 2, 3, 4, 6};
/// A value in E2M1 on a scale where the codes are 0 … 7: t − max(t − 4, 0) / 2 − max(t − 8, 0) / 4
/// with t = 2 |x|, so that rounding to a whole number is rounding to the format. Source: Metis
/// (Cao et al. 2025).
inline double e2m1_folded(double x) {
  const double t = 2 * std::abs(x);
  return t - std::max(t - 4, 0.0) / 2 - std::max(t - 8, 0.0) / 4;
}
/// Code of the nearest value, of two equally near ones the even code; `shift` is added on the
/// folded scale before rounding (stochastic rounding with uniform numbers in [−½, ½), unbiased
/// below 6).
inline std::uint8_t e2m1_code(double x, double shift = 0) {
  const double code = std::clamp(std::nearbyint(e2m1_folded(x) + shift), 0.0, 7.0);
  return static_cast<std::uint8_t>(static_cast<int>(code) + (std::signbit(x) && x != 0 ? 8 : 0));
}
inline double e2m1_value(std::uint8_t code) {
  const double size = kE2M1Values[code & 7U];
  return (code & 8U) != 0 ? -size : size;
}

/// Codes of 1, 2 or 4 bits in bytes, the first in the highest bits; the last byte is filled with
/// zeros. @throws ValueError for other numbers of bits
inline std::vector<std::uint8_t> pack_codes(std::span<const std::uint8_t> codes, Index bits) {
  if (bits != 1 && bits != 2 && bits != 4)
    throw ValueError(concat("pack_codes: ", bits, " bits, expected 1, 2 or 4"));
  const auto each = static_cast<std::size_t>(8 / bits);
  std::vector<std::uint8_t> bytes((codes.size() + each - 1) / each, 0);
  for (std::size_t i = 0; i < codes.size(); ++i) {
    const auto shift = static_cast<std::size_t>(bits) * (each - 1 - i % each);
    bytes[i / each] = static_cast<std::uint8_t>(bytes[i / each] | (codes[i] << shift));
  }
  return bytes;
}
/// The first `count` codes. @throws ValueError for another number of bits or too few bytes
inline std::vector<std::uint8_t> unpack_codes(std::span<const std::uint8_t> bytes, Index bits,
                                              Index count) {
  if (bits != 1 && bits != 2 && bits != 4)
    throw ValueError(concat("unpack_codes: ", bits, " bits, expected 1, 2 or 4"));
  const auto each = static_cast<std::size_t>(8 / bits);
  if (count < 0 || static_cast<std::size_t>(count) > bytes.size() * each)
    throw ValueError(concat("unpack_codes: ", count, " codes in ", bytes.size(), " bytes"));
  std::vector<std::uint8_t> codes(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < codes.size(); ++i) {
    const auto shift = static_cast<std::size_t>(bits) * (each - 1 - i % each);
    codes[i] = static_cast<std::uint8_t>((bytes[i / each] >> shift) & ((1U << bits) - 1U));
  }
  return codes;
}

}  // namespace graft::inline v0_1::quant
