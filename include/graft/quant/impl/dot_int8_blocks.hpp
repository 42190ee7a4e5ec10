// Products of stored rows with one row in 8 bits for one instruction set; see dot_int8.hpp. No
// include guard.
//
// A vector holds 16 bytes of each of kInt8Rows stored rows, so that four lanes belong to a row
// whatever the width: their codes, as unsigned bytes, are multiplied with the same 16 bytes of x.
namespace graft::inline v0_1::quant::detail::GRAFT_SIMD_NS {

inline constexpr int kInt8Rows = kLanes / 4;
/// Bytes from the row that is multiplied to what is fetched into the cache: memory that a core
/// reads on its own stays far behind what it can deliver.
inline constexpr Index kInt8Ahead = 8192;
using Chunk = kernels::Vec<std::int32_t, 4>;
/// Scale and minimum of each row.
using Pairs = kernels::Vec<float, kLanes == 16 ? 8 : 4>;

GRAFT_SIMD_INLINE Chunk load_chunk(const void* p) noexcept {
  Chunk v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

/// The same 16 bytes for every row.
GRAFT_SIMD_INLINE Ints repeat_chunk(const std::int8_t* p) noexcept {
#if GRAFT_SIMD_BYTES == 64
  Ints v;
  asm("vbroadcasti32x4 {%1, %0|%0, %1}"
      : "=v"(v)
      : "m"(*reinterpret_cast<const kernels::VecOf<std::int8_t, 16>::unaligned*>(p)));
  return v;
#elif GRAFT_SIMD_BYTES == 32
  const Chunk v = load_chunk(p);
  return __builtin_shufflevector(v, v, 0, 1, 2, 3, 0, 1, 2, 3);
#else
  return load_chunk(p);
#endif
}

/// The chunks of all rows as one vector.
GRAFT_SIMD_INLINE Ints join_chunks(const Chunk* c) noexcept {
#if GRAFT_SIMD_BYTES == 16
  return c[0];
#else
  const auto low = __builtin_shufflevector(c[0], c[1], 0, 1, 2, 3, 4, 5, 6, 7);
#if GRAFT_SIMD_BYTES == 64
  const auto high = __builtin_shufflevector(c[2], c[3], 0, 1, 2, 3, 4, 5, 6, 7);
  return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
#else
  return low;
#endif
#endif
}
/// 16 bytes of each row, from `at` on.
GRAFT_SIMD_INLINE Ints gather_chunks(const std::uint8_t* const* rows, Index at) noexcept {
  Chunk chunks[kInt8Rows];
  GRAFT_UNROLL
  for (int r = 0; r < kInt8Rows; ++r) chunks[r] = load_chunk(rows[r] + at);
  return join_chunks(chunks);
}

GRAFT_SIMD_INLINE Ints same_bytes(int byte) noexcept {
  return broadcast(static_cast<std::int32_t>(0x01010101U * static_cast<unsigned>(byte)));
}

#if GRAFT_SIMD_BYTES == 16
using Codes = kernels::Vec<std::int8_t, 16>;
using Words = kernels::Vec<std::int16_t, 8>;
GRAFT_SIMD_INLINE Codes interleave_low(Codes a, Codes b) noexcept {
  return __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}
GRAFT_SIMD_INLINE Codes interleave_high(Codes a, Codes b) noexcept {
  return __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15,
                                 31);
}
/// Signed bytes as words.
GRAFT_SIMD_INLINE Words low_words(Ints v) noexcept {
  const auto bytes = reinterpret_cast<Codes>(v);
  return reinterpret_cast<Words>(interleave_low(bytes, bytes)) >> 8;
}
GRAFT_SIMD_INLINE Words high_words(Ints v) noexcept {
  const auto bytes = reinterpret_cast<Codes>(v);
  return reinterpret_cast<Words>(interleave_high(bytes, bytes)) >> 8;
}
/// Σ a b of neighbours.
GRAFT_SIMD_INLINE Ints add_products(Words a, Words b) noexcept {
#if GRAFT_X86
  asm("pmaddwd {%1, %0|%0, %1}" : "+x"(a) : "x"(b));
  return reinterpret_cast<Ints>(a);
#else
  Ints r;
  for (int i = 0; i < 4; ++i) r[i] = a[2 * i] * b[2 * i] + a[2 * i + 1] * b[2 * i + 1];
  return r;
#endif
}
/// Σ w s over the four bytes of each lane, for w as words.
GRAFT_SIMD_INLINE Ints dot_words(Words low, Words high, Ints s) noexcept {
  const Ints a = add_products(low, low_words(s)), b = add_products(high, high_words(s));
  return __builtin_shufflevector(a, b, 0, 2, 4, 6) + __builtin_shufflevector(a, b, 1, 3, 5, 7);
}
#endif

/// sum + Σ u s over the four bytes of each lane: u unsigned, s signed. Exact while 2 u |s| < 2¹⁵
/// (vpmaddubsw).
GRAFT_SIMD_INLINE Ints dot_bytes(Ints sum, Ints u, Ints s) noexcept {
#if GRAFT_SIMD_BYTES == 64
  asm("vpdpbusd {%2, %1, %0|%0, %1, %2}" : "+v"(sum) : "v"(u), "v"(s));
  return sum;
#elif GRAFT_SIMD_BYTES == 32
  Ints words;
  asm("vpmaddubsw {%2, %1, %0|%0, %1, %2}" : "=x"(words) : "x"(u), "x"(s));
  asm("vpmaddwd {%1, %0, %0|%0, %0, %1}" : "+x"(words) : "x"(broadcast(0x00010001)));
  return sum + words;
#else
  const auto bytes = reinterpret_cast<Codes>(u);
  return sum + dot_words(reinterpret_cast<Words>(interleave_low(bytes, Codes{})),
                         reinterpret_cast<Words>(interleave_high(bytes, Codes{})), s);
#endif
}
/// The same for two signed factors. At 64 bytes, it is that of w + 128.
GRAFT_SIMD_INLINE Ints dot_signed(Ints sum, Ints w, Ints s) noexcept {
#if GRAFT_SIMD_BYTES == 64
  return dot_bytes(sum, w ^ same_bytes(128), s);
#elif GRAFT_SIMD_BYTES == 32
  Ints magnitude, turned;
  asm("vpabsb {%1, %0|%0, %1}" : "=x"(magnitude) : "x"(w));
  asm("vpsignb {%2, %1, %0|%0, %1, %2}" : "=x"(turned) : "x"(s), "x"(w));
  return dot_bytes(sum, magnitude, turned);
#else
  return sum + dot_words(low_words(w), high_words(w), s);
#endif
}
/// −offset Σ s, where sums of codes begin that stand for code − offset.
GRAFT_SIMD_INLINE Ints offset_sum(int offset, Ints s) noexcept {
  return offset == 0 ? Ints{} : -dot_bytes(Ints{}, same_bytes(offset), s);
}
GRAFT_SIMD_INLINE Ints offset_sum(int offset, Ints s, Ints t) noexcept {
  return offset == 0 ? Ints{}
                     : -dot_bytes(dot_bytes(Ints{}, same_bytes(offset), s), same_bytes(offset), t);
}

/// The f16 values in a word of each row, from `at` on: (first, second) by rows.
GRAFT_SIMD_INLINE Pairs half_pairs(const std::uint8_t* const* rows, Index at) noexcept {
#if GRAFT_SIMD_BYTES == 64
  std::int32_t words[4];
  GRAFT_UNROLL
  for (int r = 0; r < 4; ++r) __builtin_memcpy(words + r, rows[r] + at, 4);
  Pairs values;
  asm("vcvtph2ps {%1, %0|%0, %1}"
      : "=v"(values)
      : "v"(Chunk{words[0], words[1], words[2], words[3]}));
  return values;
#else
  const auto first = static_cast<std::int32_t>(word_at(rows[0] + at));
  const auto second = static_cast<std::int32_t>(word_at(rows[kInt8Rows - 1] + at));
  Chunk halves = {first, first >> 16, second, second >> 16};
  // As half_values, by lanes.
  const Chunk magnitude = halves & 0x7FFF;
  const Chunk subnormal =
      reinterpret_cast<Chunk>(reinterpret_cast<Pairs>(magnitude | 0x3F00'0000) - (Pairs{} + 0.5F));
  const Chunk special = (magnitude << 13) | 0x7F80'0000;
  const Chunk finite = magnitude < 0x0400 ? subnormal : (magnitude << 13) + (112 << 23);
  const Chunk value = magnitude >= 0x7C00 ? special : finite;
  return reinterpret_cast<Pairs>(((halves & 0x8000) << 16) | value);
#endif
}

/// Sums of kInt8Rows rows: four lanes each, and what minima add, beside values that do not count.
struct Int8Sums {
  Floats sums{};
  Pairs minima{};

  /// Adds scale · s · dot + minimum · s Σ q for (scale, minimum) by rows and x's (s, s Σ q).
  GRAFT_SIMD_INLINE void add(Ints dot, Pairs scales, const float* x_pair) noexcept {
    double both;
    __builtin_memcpy(&both, x_pair, sizeof both);
#if GRAFT_SIMD_BYTES == 64
    const Pairs scaled =
        scales * reinterpret_cast<Pairs>(kernels::Vec<double, 4>{both, both, both, both});
    Floats spread;
    asm("vpermps {%g2, %1, %0|%0, %1, %g2}"
        : "=v"(spread)
        : "v"(lane_numbers() >> 2 << 1), "v"(scaled));
#else
    const Pairs scaled = scales * reinterpret_cast<Pairs>(kernels::Vec<double, 2>{both, both});
#if GRAFT_SIMD_BYTES == 32
    const Floats spread = __builtin_shufflevector(scaled, scaled, 0, 0, 0, 0, 2, 2, 2, 2);
#else
    const Floats spread = __builtin_shufflevector(scaled, scaled, 0, 0, 0, 0);
#endif
#endif
    minima = minima + scaled;
    sums = fma(to_floats(dot), spread, sums);
  }
};

// How a format is walked: add() adds the products with the kValues values from `first` on; the rows
// are at their block.

/// 32 values: f16 d, with kOffset 0 also f16 m, fifth bits if kFifth, 16 bytes of nibbles at
/// kCodes.
template <Index kSize, Index kCodes, int kOffset, bool kFifth>
struct Int8Nibbles {
  static constexpr Index kValues = 32, kBytes = kSize;
  static constexpr bool kMinimum = kOffset == 0;

  /// Eight bytes: bit k of `bits` is bit 4 of byte k.
  GRAFT_SIMD_INLINE static long long spread(std::uint64_t bits) noexcept {
    const std::uint64_t bytes =
        ((bits & 0x7f) * 0x0002'0408'1020'4081U & 0x0101'0101'0101'0101U) | (bits & 0x80) << 49;
    return static_cast<long long>(bytes << 4);
  }
  /// The fifth bits of sixteen values of each row, from those at `at`.
  GRAFT_SIMD_INLINE static Ints fifths(const std::uint8_t* const* rows, Index at) noexcept {
    Chunk chunks[kInt8Rows];
    GRAFT_UNROLL
    for (int r = 0; r < kInt8Rows; ++r)
      chunks[r] = reinterpret_cast<Chunk>(
          kernels::Vec<long long, 2>{spread(rows[r][at]), spread(rows[r][at + 1])});
    return join_chunks(chunks);
  }
  GRAFT_SIMD_INLINE static void add(const std::uint8_t* const* rows, const std::int8_t* codes,
                                    const float* pairs, Int8Sums& sums) noexcept {
    const Ints nibbles = gather_chunks(rows, kCodes), mask = same_bytes(15);
    const Ints x0 = repeat_chunk(codes), x1 = repeat_chunk(codes + 16);
    Ints low = nibbles & mask, high = (nibbles >> 4) & mask;
    if constexpr (kFifth) {
      low |= fifths(rows, kCodes - 4);
      high |= fifths(rows, kCodes - 2);
    }
    const Ints dot = dot_bytes(dot_bytes(offset_sum(kOffset, x0, x1), low, x0), high, x1);
    sums.add(dot, half_pairs(rows, 0), pairs);
  }
};

/// Q8_0: f16 d, 32 signed bytes.
struct Int8Bytes {
  static constexpr Index kValues = 32, kBytes = 34;
  static constexpr bool kMinimum = false;
  GRAFT_SIMD_INLINE static void add(const std::uint8_t* const* rows, const std::int8_t* codes,
                                    const float* pairs, Int8Sums& sums) noexcept {
    const Ints x0 = repeat_chunk(codes), x1 = repeat_chunk(codes + 16);
    Ints dot = offset_sum(GRAFT_SIMD_BYTES == 64 ? 128 : 0, x0, x1);
    dot = dot_signed(dot_signed(dot, gather_chunks(rows, 2), x0), gather_chunks(rows, 18), x1);
    sums.add(dot, half_pairs(rows, 0), pairs);
  }
};

/// Q4_K and, if kFifth, Q5_K; see decode_q4_k.
template <Index kSize, bool kFifth>
struct Int8SuperBlock {
  static constexpr Index kValues = 256, kBytes = kSize;
  static constexpr bool kMinimum = true;
  GRAFT_SIMD_INLINE static void add(const std::uint8_t* const* rows, const std::int8_t* codes,
                                    const float* pairs, Int8Sums& sums) noexcept {
    Pairs scales[8] = {};
    for (int r = 0; r < kInt8Rows; ++r) {
      std::int32_t words[DotQ4K::kWords];
      float values[16];  // scales, then minima with their sign
      DotQ4K::gather(rows[r], 1, words);
      DotQ4K::scales(rows[r], words, 1, values);
      for (int i = 0; i < 8; ++i) {
        scales[i][2 * r] = values[i];
        scales[i][2 * r + 1] = values[8 + i];
      }
    }
    const Ints mask = same_bytes(15);
    GRAFT_UNROLL
    for (int pair = 0; pair < 4; ++pair, codes += 64, pairs += 4) {
      Ints low{}, high{};
      GRAFT_UNROLL
      for (int i = 0; i < 32; i += 16) {
        const Ints nibbles = gather_chunks(rows, kBytes - 128 + 32 * pair + i);
        Ints a = nibbles & mask, b = (nibbles >> 4) & mask;
        if constexpr (kFifth) {
          const Ints bits = gather_chunks(rows, 16 + i) >> (2 * pair);
          a |= (bits & same_bytes(1)) << 4;
          b |= (bits & same_bytes(2)) << 3;
        }
        low = dot_bytes(low, a, repeat_chunk(codes + i));
        high = dot_bytes(high, b, repeat_chunk(codes + 32 + i));
      }
      sums.add(low, scales[2 * pair], pairs);
      sums.add(high, scales[2 * pair + 1], pairs + 2);
    }
  }
};

/// Q6_K; see decode_q6_k.
struct Int8SixBits {
  static constexpr Index kValues = 256, kBytes = 210;
  static constexpr bool kMinimum = false;
  GRAFT_SIMD_INLINE static void add(const std::uint8_t* const* rows, const std::int8_t* codes,
                                    const float* pairs, Int8Sums& sums) noexcept {
    Pairs scales[16] = {};
    for (int r = 0; r < kInt8Rows; ++r) {
      float values[16];
      DotQ6K::scales(rows[r], nullptr, 1, values);
      for (int i = 0; i < 16; ++i) scales[i][2 * r] = values[i];
    }
    const Ints mask = same_bytes(15), upper = same_bytes(48);
    for (int half = 0; half < 2; ++half) {
      GRAFT_UNROLL
      for (int i = 0; i < 2; ++i) {
        const Ints a = gather_chunks(rows, 64 * half + 16 * i);
        const Ints b = gather_chunks(rows, 64 * half + 32 + 16 * i);
        const Ints bits = gather_chunks(rows, 128 + 32 * half + 16 * i);
        const Ints code[4] = {
            (a & mask) | ((bits << 4) & upper), (b & mask) | ((bits << 2) & upper),
            ((a >> 4) & mask) | (bits & upper), ((b >> 4) & mask) | ((bits >> 2) & upper)};
        GRAFT_UNROLL
        for (int part = 0; part < 4; ++part) {
          const Index block = 4 * half + part;
          const Ints x = repeat_chunk(codes + 32 * block + 16 * i);
          sums.add(dot_bytes(offset_sum(32, x), code[part], x), scales[2 * block + i],
                   pairs + 2 * block);
        }
      }
    }
  }
};

/// The kernels::DotInt8Rows of a format.
template <class F>
GRAFT_SIMD_FN GRAFT_NOINLINE void dot_int8(const void* rows, Index row_bytes, Index count, Index in,
                                           const std::int8_t* codes, const float* pairs,
                                           float* y) noexcept {
  const auto* const bytes = static_cast<const std::uint8_t*>(rows);
  const std::uint8_t* const end = bytes + count * row_bytes;
  for (const std::uint8_t* p = bytes; p < std::min(end, bytes + kInt8Ahead); p += 64)
    __builtin_prefetch(p);
  for (Index j = 0; j < count; j += kInt8Rows) {
    const std::uint8_t* row[kInt8Rows];
    GRAFT_UNROLL
    for (int r = 0; r < kInt8Rows; ++r)  // beyond the last row: that one again
      row[r] = bytes + std::min(j + r, count - 1) * row_bytes;
    Int8Sums sums;
    const std::uint8_t* ahead = row[0] + kInt8Ahead;
    for (Index l = 0; l < in; l += F::kValues, ahead += kInt8Rows * F::kBytes) {
      if (ahead < end) {
        GRAFT_UNROLL
        for (Index line = 0; line < kInt8Rows * F::kBytes; line += 64)
          __builtin_prefetch(ahead + line);
      }
      F::add(row, codes + l, pairs + l / 16, sums);
      GRAFT_UNROLL
      for (int r = 0; r < kInt8Rows; ++r) row[r] += F::kBytes;
    }
    float lanes[kLanes], minima[8];
    store(lanes, sums.sums);
    __builtin_memcpy(minima, &sums.minima, sizeof sums.minima);
    GRAFT_UNROLL
    for (int r = 0; r < kInt8Rows; ++r) {
      if (j + r >= count) break;
      const float* const four = lanes + 4 * r;
      const float sum = (four[0] + four[1]) + (four[2] + four[3]);
      y[j + r] = F::kMinimum ? sum + minima[2 * r + 1] : sum;
    }
  }
}

}  // namespace graft::inline v0_1::quant::detail::GRAFT_SIMD_NS
