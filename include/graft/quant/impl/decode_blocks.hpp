// Block decoders for one instruction set; see decode.hpp. No include guard.
namespace graft::inline v0_1::quant::detail::GRAFT_SIMD_NS {

using kernels::GRAFT_SIMD_NS::broadcast;
using kernels::GRAFT_SIMD_NS::Floats;
using kernels::GRAFT_SIMD_NS::Ints;
using kernels::GRAFT_SIMD_NS::kLanes;
using kernels::GRAFT_SIMD_NS::load;
using kernels::GRAFT_SIMD_NS::select;
using kernels::GRAFT_SIMD_NS::store;
using kernels::GRAFT_SIMD_NS::to_floats;

// GCC 12 converts bytes one by one unless it is told the instruction.
#if GRAFT_SIMD_BYTES >= 32 && !defined(__clang__)
using Bytes = kernels::Vec<char, 16>;
GRAFT_SIMD_INLINE Bytes load_bytes(const std::uint8_t* p) noexcept {
#if GRAFT_SIMD_BYTES == 64
  return *reinterpret_cast<const kernels::VecOf<char, 16>::unaligned*>(p);
#else
  long long low = 0;
  __builtin_memcpy(&low, p, sizeof low);
  return reinterpret_cast<Bytes>(kernels::Vec<long long, 2>{low, 0});
#endif
}
#endif

/// kLanes neighbouring unsigned bytes, signed bytes or 16-bit words as 32-bit integers.
GRAFT_SIMD_INLINE Ints load_u8(const std::uint8_t* p) noexcept {
#if GRAFT_SIMD_BYTES == 64 && !defined(__clang__)
  return __builtin_ia32_pmovzxbd512_mask(load_bytes(p), Ints{}, static_cast<short>(-1));
#elif GRAFT_SIMD_BYTES == 32 && !defined(__clang__)
  return __builtin_ia32_pmovzxbd256(load_bytes(p));
#else
  return __builtin_convertvector(
      *reinterpret_cast<const kernels::VecOf<std::uint8_t, kLanes>::unaligned*>(p), Ints);
#endif
}
GRAFT_SIMD_INLINE Ints load_i8(const std::uint8_t* p) noexcept {
#if GRAFT_SIMD_BYTES == 64 && !defined(__clang__)
  return __builtin_ia32_pmovsxbd512_mask(load_bytes(p), Ints{}, static_cast<short>(-1));
#elif GRAFT_SIMD_BYTES == 32 && !defined(__clang__)
  return __builtin_ia32_pmovsxbd256(load_bytes(p));
#else
  return __builtin_convertvector(
      *reinterpret_cast<const kernels::VecOf<std::int8_t, kLanes>::unaligned*>(p), Ints);
#endif
}
GRAFT_SIMD_INLINE Ints load_u16(const std::uint8_t* p) noexcept {
#if GRAFT_SIMD_BYTES == 64 && !defined(__clang__)
  kernels::Vec<short, 16> words;  // a copy: p may be odd
  __builtin_memcpy(&words, p, sizeof words);
  return __builtin_ia32_pmovzxwd512_mask(words, Ints{}, static_cast<short>(-1));
#elif GRAFT_SIMD_BYTES == 32 && !defined(__clang__)
  kernels::Vec<short, 8> words;
  __builtin_memcpy(&words, p, sizeof words);
  return __builtin_ia32_pmovzxwd256(words);
#else
  kernels::Vec<std::uint16_t, kLanes> words;  // a copy: p may be odd
  __builtin_memcpy(&words, p, sizeof words);
  return __builtin_convertvector(words, Ints);
#endif
}

GRAFT_SIMD_INLINE std::uint16_t half_word(const std::uint8_t* p) noexcept {
  std::uint16_t bits = 0;
  __builtin_memcpy(&bits, p, sizeof bits);
  return bits;
}
GRAFT_SIMD_INLINE float half_value(const std::uint8_t* p) noexcept {
  return f16_to_f32(half_word(p));
}

/// table[index] for indices below 16.
GRAFT_SIMD_INLINE Floats lookup16(const float* table, Ints index) noexcept {
#if GRAFT_SIMD_BYTES == 64 && defined(__clang__)
  return __builtin_ia32_permvarsf512(load(table), index);
#elif GRAFT_SIMD_BYTES == 64
  return __builtin_ia32_permvarsf512_mask(load(table), index, Floats{}, static_cast<short>(-1));
#elif GRAFT_SIMD_BYTES == 32
  const Floats low = __builtin_ia32_permvarsf256(load(table), index);
  const Floats high = __builtin_ia32_permvarsf256(load(table + 8), index);
  return select(index > 7, high, low);
#else
  Floats values{};
  for (int i = 0; i < kLanes; ++i) values[i] = table[index[i]];
  return values;
#endif
}

/// Where the block of the value `first` begins.
GRAFT_SIMD_INLINE const std::uint8_t* block_at(const void* row, Index first, Index elements,
                                               Index bytes) noexcept {
  return static_cast<const std::uint8_t*>(row) + first / elements * bytes;
}

GRAFT_SIMD_FN inline void decode_f32(const void* row, Index first, Index count,
                                     float* out) noexcept {
  if (count > 0) {
    __builtin_memcpy(out, block_at(row, first, 1, 4),
                     static_cast<std::size_t>(count) * sizeof(float));
  }
}

GRAFT_SIMD_INLINE Floats half_values(Ints halves) noexcept {
  // As f16_to_f32, by lanes.
  const Ints magnitude = halves & 0x7FFF;
  const Ints normal = (magnitude << 13) + (112 << 23);
  const Ints subnormal =
      reinterpret_cast<Ints>(reinterpret_cast<Floats>(magnitude | 0x3F00'0000) - broadcast(0.5F));
  const Ints special = (magnitude << 13) | 0x7F80'0000;
  const Ints finite = select(magnitude < 0x0400, subnormal, normal);
  const Ints value = select(magnitude >= 0x7C00, special, finite);
  return reinterpret_cast<Floats>(((halves & 0x8000) << 16) | value);
}

GRAFT_SIMD_FN inline void decode_f16(const void* row, Index first, Index count,
                                     float* out) noexcept {
  const std::uint8_t* const in = block_at(row, first, 1, 2);
  Index i = 0;
  for (; i + kLanes <= count; i += kLanes) store(out + i, half_values(load_u16(in + 2 * i)));
  for (; i < count; ++i) out[i] = half_value(in + 2 * i);
}

GRAFT_SIMD_FN inline void decode_bf16(const void* row, Index first, Index count,
                                      float* out) noexcept {
  const std::uint8_t* const in = block_at(row, first, 1, 2);
  Index i = 0;
  for (; i + kLanes <= count; i += kLanes)
    store(out + i, reinterpret_cast<Floats>(load_u16(in + 2 * i) << 16));
  for (; i < count; ++i) out[i] = bf16_to_f32(half_word(in + 2 * i));
}

// Q4_0: f16 d, 16 bytes; the low nibbles are the first 16 values. w = d (q − 8)
GRAFT_SIMD_FN inline void decode_q4_0(const void* row, Index first, Index count,
                                      float* out) noexcept {
  const std::uint8_t* block = block_at(row, first, 32, 18);
  for (const float* const end = out + count; out < end; out += 32, block += 18) {
    const Floats d = broadcast(half_value(block));
    GRAFT_UNROLL
    for (int i = 0; i < 16; i += kLanes) {
      const Ints codes = load_u8(block + 2 + i);
      store(out + i, d * to_floats((codes & 15) - 8));
      store(out + 16 + i, d * to_floats((codes >> 4) - 8));
    }
  }
}

// Q4_1: f16 d, f16 m, 16 bytes as in Q4_0. w = d q + m
GRAFT_SIMD_FN inline void decode_q4_1(const void* row, Index first, Index count,
                                      float* out) noexcept {
  const std::uint8_t* block = block_at(row, first, 32, 20);
  for (const float* const end = out + count; out < end; out += 32, block += 20) {
    const Floats d = broadcast(half_value(block));
    const Floats m = broadcast(half_value(block + 2));
    GRAFT_UNROLL
    for (int i = 0; i < 16; i += kLanes) {
      const Ints codes = load_u8(block + 4 + i);
      store(out + i, d * to_floats(codes & 15) + m);
      store(out + 16 + i, d * to_floats(codes >> 4) + m);
    }
  }
}

/// Bit 4 of the values i … i + kLanes − 1 of a Q5_0 or Q5_1 block, whose fifth bits are in `high`.
GRAFT_SIMD_INLINE Ints fifth_bits(std::uint32_t high, int i) noexcept {
  const Ints bits = broadcast(static_cast<std::int32_t>(high >> i));
  return ((bits >> kernels::GRAFT_SIMD_NS::lane_numbers()) & 1) << 4;
}
GRAFT_SIMD_INLINE std::uint32_t word_at(const std::uint8_t* p) noexcept {
  std::uint32_t word = 0;
  __builtin_memcpy(&word, p, sizeof word);
  return word;
}

// Q5_0: f16 d, 32 fifth bits, 16 bytes as in Q4_0. w = d (q − 16)
GRAFT_SIMD_FN inline void decode_q5_0(const void* row, Index first, Index count,
                                      float* out) noexcept {
  const std::uint8_t* block = block_at(row, first, 32, 22);
  for (const float* const end = out + count; out < end; out += 32, block += 22) {
    const Floats d = broadcast(half_value(block));
    const std::uint32_t high = word_at(block + 2);
    GRAFT_UNROLL
    for (int i = 0; i < 16; i += kLanes) {
      const Ints codes = load_u8(block + 6 + i);
      store(out + i, d * to_floats(((codes & 15) | fifth_bits(high, i)) - 16));
      store(out + 16 + i, d * to_floats(((codes >> 4) | fifth_bits(high, 16 + i)) - 16));
    }
  }
}

// Q5_1: f16 d, f16 m, 32 fifth bits, 16 bytes as in Q4_0. w = d q + m
GRAFT_SIMD_FN inline void decode_q5_1(const void* row, Index first, Index count,
                                      float* out) noexcept {
  const std::uint8_t* block = block_at(row, first, 32, 24);
  for (const float* const end = out + count; out < end; out += 32, block += 24) {
    const Floats d = broadcast(half_value(block));
    const Floats m = broadcast(half_value(block + 2));
    const std::uint32_t high = word_at(block + 4);
    GRAFT_UNROLL
    for (int i = 0; i < 16; i += kLanes) {
      const Ints codes = load_u8(block + 8 + i);
      store(out + i, d * to_floats((codes & 15) | fifth_bits(high, i)) + m);
      store(out + 16 + i, d * to_floats((codes >> 4) | fifth_bits(high, 16 + i)) + m);
    }
  }
}

// Q8_0: f16 d, 32 signed bytes. w = d q
GRAFT_SIMD_FN inline void decode_q8_0(const void* row, Index first, Index count,
                                      float* out) noexcept {
  const std::uint8_t* block = block_at(row, first, 32, 34);
  for (const float* const end = out + count; out < end; out += 32, block += 34) {
    const Floats d = broadcast(half_value(block));
    GRAFT_UNROLL
    for (int i = 0; i < 32; i += kLanes) store(out + i, d * to_floats(load_i8(block + 2 + i)));
  }
}

// Q2_K: 16 bytes (scale in the low nibble, minimum in the high one; one per 16 values), 64 bytes of
// 2-bit codes, f16 d, f16 dmin. Byte i of each half holds the values i, i + 32, i + 64, i + 96 of
// that half. w = (d scale) q − dmin min
GRAFT_SIMD_FN inline void decode_q2_k(const void* row, Index first, Index count,
                                      float* out) noexcept {
  const std::uint8_t* block = block_at(row, first, 256, 84);
  for (const float* const end = out + count; out < end; out += 256, block += 84) {
    const float d = half_value(block + 80), dmin = half_value(block + 82);
    for (int group = 0; group < 16; ++group) {
      const int half = group / 8, shift = group % 8 / 2 * 2;
      const Floats scale = broadcast(d * static_cast<float>(block[group] & 15));
      const Floats minimum = broadcast(dmin * static_cast<float>(block[group] >> 4));
      const std::uint8_t* const codes = block + 16 + half * 32 + group % 2 * 16;
      GRAFT_UNROLL
      for (int i = 0; i < 16; i += kLanes) {
        store(out + group * 16 + i, scale * to_floats((load_u8(codes + i) >> shift) & 3) - minimum);
      }
    }
  }
}

// Q3_K: 32 bytes of third bits (bit g of byte i: value 32 g + i), 64 bytes of 2-bit codes as in
// Q2_K, 12 bytes of sixteen 6-bit scales, f16 d. A third bit of 0 subtracts 4. w = d (scale − 32) q
GRAFT_SIMD_FN inline void decode_q3_k(const void* row, Index first, Index count,
                                      float* out) noexcept {
  const std::uint8_t* block = block_at(row, first, 256, 110);
  for (const float* const end = out + count; out < end; out += 256, block += 110) {
    const std::uint8_t* const scales = block + 96;
    const float d = half_value(block + 108);
    for (int group = 0; group < 16; ++group) {
      const int half = group / 8, shift = group % 8 / 2 * 2, plane = group / 2;
      const int low = scales[group % 8] >> (group / 8 * 4) & 15;
      const int high = scales[8 + group % 4] >> (group / 4 * 2) & 3;
      const Floats scale = broadcast(d * static_cast<float>((low | high << 4) - 32));
      const std::uint8_t* const thirds = block + group % 2 * 16;
      const std::uint8_t* const codes = block + 32 + half * 32 + group % 2 * 16;
      GRAFT_UNROLL
      for (int i = 0; i < 16; i += kLanes) {
        const Ints third = (load_u8(thirds + i) >> plane) & 1;
        const Ints code = (load_u8(codes + i) >> shift) & 3;
        store(out + group * 16 + i, scale * to_floats(code + third * 4 - 4));
      }
    }
  }
}

/// Scale and minimum (6 bits each) of sub-block j < 8 of Q4_K and Q5_K, from 12 bytes.
GRAFT_SIMD_INLINE void scale_and_minimum(const std::uint8_t* packed, int j, float& scale,
                                         float& minimum) noexcept {
  int s = 0, m = 0;
  if (j < 4) {
    s = packed[j] & 63;
    m = packed[j + 4] & 63;
  } else {
    s = (packed[j + 4] & 15) | (packed[j - 4] >> 6) << 4;
    m = packed[j + 4] >> 4 | (packed[j] >> 6) << 4;
  }
  scale = static_cast<float>(s);
  minimum = static_cast<float>(m);
}

// Q4_K: f16 d, f16 dmin, 12 bytes of scales and minima, 128 bytes. Each 32 bytes hold two
// sub-blocks of 32: low nibbles, then high nibbles. w = (d scale) q − dmin min
GRAFT_SIMD_FN inline void decode_q4_k(const void* row, Index first, Index count,
                                      float* out) noexcept {
  const std::uint8_t* block = block_at(row, first, 256, 144);
  for (const float* const end = out + count; out < end; out += 256, block += 144) {
    const float d = half_value(block), dmin = half_value(block + 2);
    GRAFT_UNROLL
    for (int pair = 0; pair < 4; ++pair) {
      float scale[2], minimum[2];
      scale_and_minimum(block + 4, 2 * pair, scale[0], minimum[0]);
      scale_and_minimum(block + 4, 2 * pair + 1, scale[1], minimum[1]);
      const Floats low_scale = broadcast(d * scale[0]), low_minimum = broadcast(dmin * minimum[0]);
      const Floats high_scale = broadcast(d * scale[1]),
                   high_minimum = broadcast(dmin * minimum[1]);
      const std::uint8_t* const codes = block + 16 + 32 * pair;
      float* const to = out + 64 * pair;
      GRAFT_UNROLL
      for (int i = 0; i < 32; i += kLanes) {
        const Ints code = load_u8(codes + i);
        store(to + i, low_scale * to_floats(code & 15) - low_minimum);
        store(to + 32 + i, high_scale * to_floats(code >> 4) - high_minimum);
      }
    }
  }
}

// Q5_K: as Q4_K, with 32 bytes of fifth bits before the nibbles (bit j of byte i: value i of
// sub-block j).
GRAFT_SIMD_FN inline void decode_q5_k(const void* row, Index first, Index count,
                                      float* out) noexcept {
  const std::uint8_t* block = block_at(row, first, 256, 176);
  for (const float* const end = out + count; out < end; out += 256, block += 176) {
    const float d = half_value(block), dmin = half_value(block + 2);
    for (int pair = 0; pair < 4; ++pair) {
      float scale[2], minimum[2];
      scale_and_minimum(block + 4, 2 * pair, scale[0], minimum[0]);
      scale_and_minimum(block + 4, 2 * pair + 1, scale[1], minimum[1]);
      const Floats low_scale = broadcast(d * scale[0]), low_minimum = broadcast(dmin * minimum[0]);
      const Floats high_scale = broadcast(d * scale[1]),
                   high_minimum = broadcast(dmin * minimum[1]);
      const std::uint8_t* const codes = block + 48 + 32 * pair;
      float* const to = out + 64 * pair;
      GRAFT_UNROLL
      for (int i = 0; i < 32; i += kLanes) {
        const Ints code = load_u8(codes + i);
        const Ints fifths = load_u8(block + 16 + i) >> (2 * pair);
        store(to + i, low_scale * to_floats((code & 15) | (fifths & 1) << 4) - low_minimum);
        store(to + 32 + i, high_scale * to_floats((code >> 4) | (fifths & 2) << 3) - high_minimum);
      }
    }
  }
}

/// The codes of Q6_K that bytes at `low` and 32 behind it and pairs at `high` hold: those of values
/// i, i + 32, i + 64, i + 96 of a half.
GRAFT_SIMD_INLINE void q6_k_codes(const std::uint8_t* low, const std::uint8_t* high,
                                  Ints (&codes)[4]) noexcept {
  const Ints first = load_u8(low), second = load_u8(low + 32), pairs = load_u8(high);
  codes[0] = (first & 15) | (pairs & 3) << 4;
  codes[1] = (second & 15) | (pairs & 12) << 2;
  codes[2] = (first >> 4) | (pairs & 48);
  codes[3] = (second >> 4) | (pairs >> 6) << 4;
}

// Q6_K: 128 bytes of low nibbles, 64 bytes of bit pairs, 16 signed scales (one per 16 values), f16
// d. In each half, byte i of 64 holds values i (low) and i + 64 (high); pair byte i holds the upper
// bits of the values i, i + 32, i + 64, i + 96. w = (d scale) (q − 32)
GRAFT_SIMD_FN inline void decode_q6_k(const void* row, Index first, Index count,
                                      float* out) noexcept {
  const std::uint8_t* block = block_at(row, first, 256, 210);
  for (const float* const end = out + count; out < end; out += 256, block += 210) {
    const float d = half_value(block + 208);
    GRAFT_UNROLL
    for (int half = 0; half < 2; ++half) {
      const std::uint8_t* const low = block + 64 * half;
      const std::uint8_t* const high = block + 128 + 32 * half;
      const std::uint8_t* const scales = block + 192 + 8 * half;
      float* const to = out + 128 * half;
      GRAFT_UNROLL
      for (int i = 0; i < 32; i += kLanes) {
        Ints codes[4];
        q6_k_codes(low + i, high + i, codes);
        GRAFT_UNROLL
        for (int part = 0; part < 4; ++part) {
          const auto scale =
              static_cast<float>(static_cast<std::int8_t>(scales[2 * part + i / 16]));
          store(to + 32 * part + i, broadcast(d * scale) * to_floats(codes[part] - 32));
        }
      }
    }
  }
}

// IQ4_NL: f16 d, 16 bytes as in Q4_0. w = d value[q]
GRAFT_SIMD_FN inline void decode_iq4_nl(const void* row, Index first, Index count,
                                        float* out) noexcept {
  const std::uint8_t* block = block_at(row, first, 32, 18);
  for (const float* const end = out + count; out < end; out += 32, block += 18) {
    const Floats d = broadcast(half_value(block));
    GRAFT_UNROLL
    for (int i = 0; i < 16; i += kLanes) {
      const Ints codes = load_u8(block + 2 + i);
      store(out + i, d * lookup16(kIq4Values, codes & 15));
      store(out + 16 + i, d * lookup16(kIq4Values, codes >> 4));
    }
  }
}

// IQ4_XS: f16 d, 16 bits (upper bits of eight scales), 4 bytes (their low nibbles), eight runs of
// 16 bytes as in Q4_0. w = d (scale − 32) value[q]
GRAFT_SIMD_FN inline void decode_iq4_xs(const void* row, Index first, Index count,
                                        float* out) noexcept {
  const std::uint8_t* block = block_at(row, first, 256, 136);
  for (const float* const end = out + count; out < end; out += 256, block += 136) {
    const float d = half_value(block);
    const unsigned upper = half_word(block + 2);
    for (int run = 0; run < 8; ++run) {
      const int low = block[4 + run / 2] >> (run % 2 * 4) & 15;
      const int high = static_cast<int>(upper >> (2 * run) & 3U);
      const Floats scale = broadcast(d * static_cast<float>((low | high << 4) - 32));
      const std::uint8_t* const codes = block + 8 + 16 * run;
      GRAFT_UNROLL
      for (int i = 0; i < 16; i += kLanes) {
        const Ints code = load_u8(codes + i);
        store(out + 32 * run + i, scale * lookup16(kIq4Values, code & 15));
        store(out + 32 * run + 16 + i, scale * lookup16(kIq4Values, code >> 4));
      }
    }
  }
}

// MXFP4: E8M0 scale, 16 bytes as in Q4_0. w = scale value[q]
GRAFT_SIMD_FN inline void decode_mxfp4(const void* row, Index first, Index count,
                                       float* out) noexcept {
  const std::uint8_t* block = block_at(row, first, 32, 17);
  for (const float* const end = out + count; out < end; out += 32, block += 17) {
    const Floats d = broadcast(half_e8m0(block[0]));
    GRAFT_UNROLL
    for (int i = 0; i < 16; i += kLanes) {
      const Ints codes = load_u8(block + 1 + i);
      store(out + i, d * lookup16(kMxfp4Values, codes & 15));
      store(out + 16 + i, d * lookup16(kMxfp4Values, codes >> 4));
    }
  }
}

/// `planes` runs of `width` values out of `width` bytes with five (or four) base-3 digits each,
/// most significant first. A byte is the fraction b / 256: times 3^plane, the digit is what three
/// times its rest carries.
GRAFT_SIMD_INLINE void base3_digits(const std::uint8_t* bytes, int width, int planes, Floats d,
                                    float* out) noexcept {
  int power = 1;
  for (int plane = 0; plane < planes; ++plane, power *= 3) {
    int i = 0;
    for (; i + kLanes <= width; i += kLanes) {
      const Ints rest = (load_u8(bytes + i) * power) & 255;
      store(out + plane * width + i, d * to_floats(((rest * 3) >> 8) - 1));
    }
    for (; i < width; ++i) {
      const int rest = (bytes[i] * power) & 255;
      out[plane * width + i] = d[0] * static_cast<float>((rest * 3 >> 8) - 1);
    }
  }
}

// TQ1_0: 48 bytes of five digits each (32 for the first 160 values, 16 for the next 80), 4 bytes of
// four digits, f16 d. w = d (digit − 1)
GRAFT_SIMD_FN inline void decode_tq1_0(const void* row, Index first, Index count,
                                       float* out) noexcept {
  const std::uint8_t* block = block_at(row, first, 256, 54);
  for (const float* const end = out + count; out < end; out += 256, block += 54) {
    const Floats d = broadcast(half_value(block + 52));
    base3_digits(block, 32, 5, d, out);
    base3_digits(block + 32, 16, 5, d, out + 160);
    base3_digits(block + 48, 4, 4, d, out + 240);
  }
}

// TQ2_0: 64 bytes of 2-bit codes (in each half, byte i holds the values i, i + 32, i + 64, i + 96),
// f16 d. w = d (q − 1)
GRAFT_SIMD_FN inline void decode_tq2_0(const void* row, Index first, Index count,
                                       float* out) noexcept {
  const std::uint8_t* block = block_at(row, first, 256, 66);
  for (const float* const end = out + count; out < end; out += 256, block += 66) {
    const Floats d = broadcast(half_value(block + 64));
    for (int half = 0; half < 2; ++half) {
      GRAFT_UNROLL
      for (int i = 0; i < 32; i += kLanes) {
        const Ints codes = load_u8(block + 32 * half + i);
        float* const to = out + 128 * half + i;
        GRAFT_UNROLL
        for (int part = 0; part < 4; ++part)
          store(to + 32 * part, d * to_floats(((codes >> (2 * part)) & 3) - 1));
      }
    }
  }
}

}  // namespace graft::inline v0_1::quant::detail::GRAFT_SIMD_NS
