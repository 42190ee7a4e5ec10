#include "graft/quant/half.hpp"

#include <bit>
#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <random>

namespace {

using namespace graft::quant;

/// Value of a binary float with the given field widths, by definition.
double by_definition(unsigned bits, int exponent_bits, int fraction_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const double sign = bits >> (exponent_bits + fraction_bits) & 1U ? -1.0 : 1.0;
  const int exponent = static_cast<int>(bits >> fraction_bits & ((1U << exponent_bits) - 1U));
  const double fraction =
      static_cast<double>(bits & ((1U << fraction_bits) - 1U)) * std::ldexp(1.0, -fraction_bits);
  return sign * (exponent == 0 ? std::ldexp(fraction, 1 - bias)
                               : std::ldexp(1.0 + fraction, exponent - bias));
}

bool is_nan(float value) { return !(value == value); }

}  // namespace

TEST_CASE("every f16 decodes to its value and encodes back") {
  for (unsigned bits = 0; bits < 0x10000U; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    const float value = f16_to_f32(half);
    if ((bits & 0x7C00U) == 0x7C00U) {
      if ((bits & 0x03FFU) == 0) {
        REQUIRE(std::isinf(value));
        REQUIRE(std::signbit(value) == ((bits & 0x8000U) != 0));
        REQUIRE(f32_to_f16(value) == half);
      } else {
        REQUIRE(is_nan(value));
        REQUIRE(is_nan(f16_to_f32(f32_to_f16(value))));
      }
      continue;
    }
    REQUIRE(static_cast<double>(value) == by_definition(bits, 5, 10));
    REQUIRE(f32_to_f16(value) == half);
  }
}

TEST_CASE("f32 to f16 rounds to the nearest, ties to even") {
  for (unsigned bits = 0; bits < 0x7BFFU; ++bits) {
    const auto low = static_cast<std::uint16_t>(bits), high = static_cast<std::uint16_t>(bits + 1);
    const float a = f16_to_f32(low), b = f16_to_f32(high);
    const float middle = (a + b) / 2;  // exact: f32 has more bits
    REQUIRE(f32_to_f16(middle) == (bits % 2 == 0 ? low : high));
    REQUIRE(f32_to_f16(std::nextafter(middle, a)) == low);
    REQUIRE(f32_to_f16(std::nextafter(middle, b)) == high);
    REQUIRE(f32_to_f16(-middle) == ((bits % 2 == 0 ? low : high) | 0x8000U));
  }
  CHECK(f32_to_f16(65519.996F) == 0x7BFFU);
  CHECK(f32_to_f16(65520.0F) == 0x7C00U);
  CHECK(f32_to_f16(1e30F) == 0x7C00U);
  CHECK(f32_to_f16(std::numeric_limits<float>::denorm_min()) == 0);
  CHECK(f32_to_f16(-0.0F) == 0x8000U);
  CHECK(is_nan(f16_to_f32(f32_to_f16(std::bit_cast<float>(0x7F800001U)))));
}

TEST_CASE("bf16 is the upper half of f32, rounded to even") {
  for (unsigned bits = 0; bits < 0x10000U; ++bits) {
    const float value = bf16_to_f32(static_cast<std::uint16_t>(bits));
    REQUIRE(std::bit_cast<std::uint32_t>(value) == bits << 16);
    if (!is_nan(value)) REQUIRE(f32_to_bf16(value) == bits);
  }
  CHECK(f32_to_bf16(std::bit_cast<float>(0x3F808000U)) == 0x3F80U);
  CHECK(f32_to_bf16(std::bit_cast<float>(0x3F818000U)) == 0x3F82U);
  CHECK(f32_to_bf16(std::bit_cast<float>(0x3F808001U)) == 0x3F81U);
  CHECK(f32_to_bf16(std::bit_cast<float>(0x7F7FFFFFU)) == 0x7F80U);
  CHECK(is_nan(bf16_to_f32(f32_to_bf16(std::bit_cast<float>(0x7F800001U)))));
}

TEST_CASE("8-bit floats decode to their values") {
  for (unsigned bits = 0; bits < 0x100U; ++bits) {
    const auto byte = static_cast<std::uint8_t>(bits);
    const float e4m3 = f8_e4m3_to_f32(byte);
    if ((bits & 0x7FU) == 0x7FU) {
      CHECK(is_nan(e4m3));
    } else {
      CHECK(static_cast<double>(e4m3) == by_definition(bits, 4, 3));
    }
    const float e5m2 = f8_e5m2_to_f32(byte);
    if ((bits & 0x7CU) == 0x7CU) {
      CHECK_FALSE(std::isfinite(e5m2));
    } else {
      CHECK(static_cast<double>(e5m2) == by_definition(bits, 5, 2));
    }
  }
}
