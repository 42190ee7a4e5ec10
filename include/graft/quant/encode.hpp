#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "graft/base/types.hpp"
#include "graft/quant/decode.hpp"
#include "graft/quant/half.hpp"

/// The encoders behind `graft/quant/format.hpp`: bytes as GGML's reference gives them. Speed
/// matters little here (a file is written once); every product is rounded to f32 before it is used,
/// so the bytes do not depend on whether the compiler fuses multiplications with additions.

namespace graft::inline v0_1::quant::detail {

/// a·b rounded to f32, never fused: the product of two f32 is exact in f64.
inline float rounded_product(float a, float b) {
  return static_cast<float>(static_cast<double>(a) * static_cast<double>(b));
}

inline void put_half(float value, std::byte* out) {
  const std::uint16_t bits = f32_to_f16(value);
  std::memcpy(out, &bits, sizeof bits);
}

/// Whole part of a value, from 0 to `highest`; NaN becomes 0.
inline unsigned clamped_code(float value, unsigned highest) {
  if (!(value > 0.0F)) return 0;
  return value >= static_cast<float>(highest) ? highest : static_cast<unsigned>(value);
}

inline float inverse_or_zero(float value) { return value == 0.0F ? 0.0F : 1.0F / value; }

/// The entry of largest magnitude, the first of equals, with its sign.
inline float extreme(const float* values, int count) {
  float best = values[0];
  for (int i = 1; i < count; ++i) {
    if (std::abs(values[i]) > std::abs(best)) best = values[i];
  }
  return best;
}

inline void encode_f32(const float* values, Index blocks, std::byte* out) {
  if (blocks > 0) std::memcpy(out, values, static_cast<std::size_t>(blocks) * sizeof(float));
}
inline void encode_f16(const float* values, Index blocks, std::byte* out) {
  for (Index i = 0; i < blocks; ++i) put_half(values[i], out + 2 * i);
}
inline void encode_bf16(const float* values, Index blocks, std::byte* out) {
  for (Index i = 0; i < blocks; ++i) {
    const std::uint16_t bits = f32_to_bf16(values[i]);
    std::memcpy(out + 2 * i, &bits, sizeof bits);
  }
}

/// 32 codes as nibbles: byte i holds code i below code i + 16. Upper bits are ignored.
inline void put_nibbles(const unsigned* codes, std::byte* out) {
  for (int i = 0; i < 16; ++i)
    out[i] = static_cast<std::byte>((codes[i] & 15U) | (codes[i + 16] & 15U) << 4);
}
/// Bit 4 of each of 32 codes.
inline void put_fifth_bits(const unsigned* codes, std::byte* out) {
  std::uint32_t bits = 0;
  for (int i = 0; i < 32; ++i) bits |= (codes[i] >> 4 & 1U) << i;
  std::memcpy(out, &bits, sizeof bits);
}

/// Codes of a block around zero: the value of largest magnitude becomes code 0.
inline float symmetric_codes(const float* values, unsigned levels, unsigned* codes) {
  const float half = static_cast<float>(levels / 2);
  const float d = extreme(values, 32) / -half;
  const float inverse = inverse_or_zero(d);
  for (int i = 0; i < 32; ++i) {
    codes[i] = clamped_code(rounded_product(values[i], inverse) + (half + 0.5F), levels - 1);
  }
  return d;
}
/// Codes of a block between its smallest and its largest value.
inline float affine_codes(const float* values, unsigned levels, unsigned* codes, float& minimum) {
  const auto [smallest, largest] = std::minmax_element(values, values + 32);
  minimum = *smallest;
  const float d = (*largest - minimum) / static_cast<float>(levels - 1);
  const float inverse = inverse_or_zero(d);
  for (int i = 0; i < 32; ++i) {
    codes[i] = clamped_code(rounded_product(values[i] - minimum, inverse) + 0.5F, levels - 1);
  }
  return d;
}

inline void encode_q4_0(const float* values, Index blocks, std::byte* out) {
  unsigned codes[32];
  for (Index b = 0; b < blocks; ++b, values += 32, out += 18) {
    put_half(symmetric_codes(values, 16, codes), out);
    put_nibbles(codes, out + 2);
  }
}
inline void encode_q4_1(const float* values, Index blocks, std::byte* out) {
  unsigned codes[32];
  for (Index b = 0; b < blocks; ++b, values += 32, out += 20) {
    float minimum = 0.0F;
    put_half(affine_codes(values, 16, codes, minimum), out);
    put_half(minimum, out + 2);
    put_nibbles(codes, out + 4);
  }
}
inline void encode_q5_0(const float* values, Index blocks, std::byte* out) {
  unsigned codes[32];
  for (Index b = 0; b < blocks; ++b, values += 32, out += 22) {
    put_half(symmetric_codes(values, 32, codes), out);
    put_fifth_bits(codes, out + 2);
    put_nibbles(codes, out + 6);
  }
}
inline void encode_q5_1(const float* values, Index blocks, std::byte* out) {
  unsigned codes[32];
  for (Index b = 0; b < blocks; ++b, values += 32, out += 24) {
    float minimum = 0.0F;
    put_half(affine_codes(values, 32, codes, minimum), out);
    put_half(minimum, out + 2);
    put_fifth_bits(codes, out + 4);
    put_nibbles(codes, out + 8);
  }
}

/// round(value · inverse), halves away from zero, from −limit to limit; NaN becomes 0.
inline int rounded_code(float value, float inverse, int limit) {
  const float scaled = std::round(rounded_product(value, inverse));
  if (!(scaled == scaled)) return 0;
  return static_cast<int>(
      std::clamp(scaled, static_cast<float>(-limit), static_cast<float>(limit)));
}

inline void encode_q8_0(const float* values, Index blocks, std::byte* out) {
  for (Index b = 0; b < blocks; ++b, values += 32, out += 34) {
    const float d = std::abs(extreme(values, 32)) / 127.0F;
    const float inverse = inverse_or_zero(d);
    put_half(d, out);
    for (int i = 0; i < 32; ++i)
      out[2 + i] = static_cast<std::byte>(rounded_code(values[i], inverse, 127) & 255);
  }
}

inline void encode_mxfp4(const float* values, Index blocks, std::byte* out) {
  unsigned codes[32];
  for (Index b = 0; b < blocks; ++b, values += 32, out += 17) {
    const float largest = std::abs(extreme(values, 32));
    int exponent = 0;
    if (largest > 0.0F) {
      // The largest code is 6 = 1.5 · 2^2.
      const float biased = std::floor(std::log2(largest)) + static_cast<float>(127 - 2);
      exponent = static_cast<int>(std::clamp(biased, 0.0F, 254.0F));
    }
    const float d = half_e8m0(static_cast<std::uint8_t>(exponent));
    for (int i = 0; i < 32; ++i) {
      codes[i] = 0;
      float smallest = std::abs(values[i]);
      for (unsigned code = 1; code < 16; ++code) {
        const float error =
            std::abs(d * kMxfp4Values[code] - values[i]);  // d is a power of two: exact product
        if (error < smallest) {
          smallest = error;
          codes[i] = code;
        }
      }
    }
    out[0] = static_cast<std::byte>(exponent);
    put_nibbles(codes, out + 1);
  }
}

/// Ternary digits 0, 1, 2 of 256 values; returns the scale.
inline float ternary_codes(const float* values, unsigned* codes) {
  const float d = std::abs(extreme(values, 256));
  const float inverse = inverse_or_zero(d);
  for (int i = 0; i < 256; ++i)
    codes[i] = static_cast<unsigned>(rounded_code(values[i], inverse, 1) + 1);
  return d;
}

/// Packs `planes` runs of `width` digits into `width` bytes, as the fraction of 243 rounded up to
/// one of 256.
inline void put_base3(const unsigned* codes, int width, int planes, std::byte* out) {
  for (int i = 0; i < width; ++i) {
    unsigned sum = 0, power = 81;
    for (int plane = 0; plane < planes; ++plane, power /= 3)
      sum += codes[plane * width + i] * power;
    out[i] = static_cast<std::byte>((sum * 256 + 242) / 243);
  }
}

inline void encode_tq1_0(const float* values, Index blocks, std::byte* out) {
  unsigned codes[256];
  for (Index b = 0; b < blocks; ++b, values += 256, out += 54) {
    put_half(ternary_codes(values, codes), out + 52);
    put_base3(codes, 32, 5, out);
    put_base3(codes + 160, 16, 5, out + 32);
    put_base3(codes + 240, 4, 4, out + 48);
  }
}
inline void encode_tq2_0(const float* values, Index blocks, std::byte* out) {
  unsigned codes[256];
  for (Index b = 0; b < blocks; ++b, values += 256, out += 66) {
    put_half(ternary_codes(values, codes), out + 64);
    for (int i = 0; i < 64; ++i) {
      const unsigned* const quad = codes + i / 32 * 128 + i % 32;
      out[i] = static_cast<std::byte>(quad[0] | quad[32] << 2 | quad[64] << 4 | quad[96] << 6);
    }
  }
}

}  // namespace graft::inline v0_1::quant::detail
