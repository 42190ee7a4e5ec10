#pragma once

#include <bit>
#include <cstdint>

namespace graft::inline v0_1::quant {

/// Value of an IEEE binary16 bit pattern; exact.
inline float f16_to_f32(std::uint16_t bits) {
  const std::uint32_t word = static_cast<std::uint32_t>(bits) << 16;
  const std::uint32_t sign = word & 0x8000'0000U;
  const std::uint32_t magnitude = word & 0x7FFF'0000U;
  std::uint32_t result = 0;
  if (magnitude >= 0x7C00'0000U) {  // infinity, NaN
    result = 0x7F80'0000U | (magnitude & 0x03FF'0000U) >> 3;
  } else if (magnitude >= 0x0400'0000U) {  // normal: the exponent's bias grows from 15 to 127
    result = (magnitude >> 3) + (112U << 23);
  } else {  // subnormal: 0.5 + m·2^-24 holds m in its low bits
    result =
        std::bit_cast<std::uint32_t>(std::bit_cast<float>((magnitude >> 16) | 0x3F00'0000U) - 0.5F);
  }
  return std::bit_cast<float>(sign | result);
}

/// Nearest IEEE binary16, ties to even; too large becomes infinity, NaN stays NaN.
inline std::uint16_t f32_to_f16(float value) {
  const std::uint32_t word = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = word >> 16 & 0x8000U;
  const std::uint32_t magnitude = word & 0x7FFF'FFFFU;
  std::uint32_t result = 0;
  if (magnitude > 0x7F80'0000U) {
    result = 0x7E00U | (magnitude >> 13 & 0x03FFU);
  } else if (magnitude >= 0x4780'0000U) {  // 65536 and above
    result = 0x7C00U;
  } else if (magnitude >= 0x3880'0000U) {  // normal; a carry out of the fraction enters the
                                           // exponent, as it should
    result = (magnitude - (112U << 23) + 0x0FFFU + (magnitude >> 13 & 1U)) >> 13;
  } else {  // subnormal: the sum rounds to multiples of 2^-24
    result = std::bit_cast<std::uint32_t>(std::bit_cast<float>(magnitude) + 0.5F) - 0x3F00'0000U;
  }
  return static_cast<std::uint16_t>(sign | result);
}

/// Value of a bfloat16 bit pattern (the upper half of an f32); exact.
inline float bf16_to_f32(std::uint16_t bits) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

/// Nearest bfloat16, ties to even; NaN stays NaN (quiet).
inline std::uint16_t f32_to_bf16(float value) {
  const std::uint32_t word = std::bit_cast<std::uint32_t>(value);
  if ((word & 0x7FFF'FFFFU) > 0x7F80'0000U) return static_cast<std::uint16_t>(word >> 16 | 0x40U);
  return static_cast<std::uint16_t>((word + 0x7FFFU + (word >> 16 & 1U)) >> 16);
}

/// Value of an 8-bit float with 4 exponent and 3 fraction bits: bias 7, no infinity, NaN only at
/// S.1111.111.
inline float f8_e4m3_to_f32(std::uint8_t bits) {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x80U) << 24;
  const std::uint32_t magnitude = bits & 0x7FU;
  if (magnitude == 0x7FU) return std::bit_cast<float>(sign | 0x7FC0'0000U);
  if (magnitude < 8) {  // subnormal: multiples of 2^-9
    const float value = static_cast<float>(magnitude) * 0x1p-9F;
    return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(value));
  }
  return std::bit_cast<float>(sign | ((magnitude << 20) + (120U << 23)));
}

/// Value of an 8-bit float with 5 exponent and 2 fraction bits: the upper byte of a binary16.
inline float f8_e5m2_to_f32(std::uint8_t bits) {
  return f16_to_f32(static_cast<std::uint16_t>(static_cast<unsigned>(bits) << 8));
}

}  // namespace graft::inline v0_1::quant
