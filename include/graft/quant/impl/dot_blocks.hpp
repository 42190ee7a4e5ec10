// Products of a few rows with quantised rows for one instruction set; see dot.hpp. No include
// guard.
//
// Weights are decoded 32 to 128 at a time into registers and multiplied there. The weights are the
// bits that decode_blocks.hpp gives; the sums are those of an f32 product in another order.
namespace graft::inline v0_1::quant::detail::GRAFT_SIMD_NS {

using kernels::GRAFT_SIMD_NS::add_lanes;
using kernels::GRAFT_SIMD_NS::fma;
using kernels::GRAFT_SIMD_NS::lane_numbers;

/// Sums of one row of weights with R rows of x. A single row gets two, to hide the latency of an
/// addition.
template <int R>
struct DotSums {
  Floats of[R == 1 ? 2 : 1][R];

  /// Adds the products with the weights that begin at column `first`; `slot` tells neighbours
  /// apart.
  GRAFT_SIMD_INLINE void add(const float* const* x, Index first, int slot, Floats w) noexcept {
    Floats(&sums)[R] = of[R == 1 ? slot % 2 : 0];
    GRAFT_UNROLL
    for (int r = 0; r < R; ++r) sums[r] = fma(load(x[r] + first), w, sums[r]);
  }
  GRAFT_SIMD_INLINE Floats sum(int r) const noexcept {
    return R == 1 ? of[0][0] + of[R == 1 ? 1 : 0][0] : of[0][r];
  }
};

/// f16 values in the low halves of integers as f32.
GRAFT_SIMD_INLINE Floats low_halves(Ints words) noexcept {
#if GRAFT_SIMD_BYTES == 64
  using Words = kernels::Vec<short, 16>;
#if defined(__clang__)
  constexpr auto kAll = static_cast<unsigned short>(-1);
#else
  constexpr short kAll = -1;
#endif
  return __builtin_ia32_vcvtph2ps512_mask(__builtin_convertvector(words, Words), Floats{}, kAll, 4);
#else
  return half_values(words & 0xffff);
#endif
}

#if GRAFT_SIMD_BYTES == 64
/// table[index & 15].
GRAFT_SIMD_INLINE Floats permute16(Floats table, Ints index) noexcept {
#if defined(__clang__)
  return __builtin_ia32_permvarsf512(table, index);
#else
  return __builtin_ia32_permvarsf512_mask(table, index, Floats{}, static_cast<short>(-1));
#endif
}
#endif

/// Adds sixteen bytes of nibbles: the low ones are the weights from `first` on, the high ones those
/// from `first_high` on. w = d (q − kOffset) + m, with a second d and m for the high ones.
template <int kOffset, bool kMinimum, int R>
GRAFT_SIMD_INLINE void add_nibbles(const std::uint8_t* codes, const float* d, const float* m,
                                   const float* high_d, const float* high_m, const float* const* x,
                                   Index first, Index first_high, DotSums<R>& sums) noexcept {
#if GRAFT_SIMD_BYTES == 64
  const Floats steps = to_floats(lane_numbers() - kOffset);
  Floats low = *d * steps, high = *high_d * steps;
  if constexpr (kMinimum) {
    low = low + *m;
    high = high + *high_m;
  }
  const Ints code = load_u8(codes);
  sums.add(x, first, 0, permute16(low, code));
  sums.add(x, first_high, 1, permute16(high, code >> 4));
#else
  GRAFT_UNROLL
  for (int i = 0; i < 16; i += kLanes) {
    const Ints code = load_u8(codes + i);
    Floats low = *d * to_floats((code & 15) - kOffset);
    Floats high = *high_d * to_floats((code >> 4) - kOffset);
    if constexpr (kMinimum) {
      low = low + *m;
      high = high + *high_m;
    }
    sums.add(x, first + i, 0, low);
    sums.add(x, first_high + i, 1, high);
  }
#endif
}

/// Blocks of 32 in a step, for which scales are converted at once.
inline constexpr Index kSmallBlocks = 64;

/// Copies the word at the start of each block: an f16, and a second one if there are minima.
template <Index kBytes>
GRAFT_SIMD_INLINE void gather_words(const std::uint8_t* block, Index blocks,
                                    std::int32_t* words) noexcept {
  store(words + blocks / kLanes * kLanes, Ints{});
  Index b = 0;
  for (; b + 4 <= blocks; b += 4, block += 4 * kBytes) {
    GRAFT_UNROLL
    for (int i = 0; i < 4; ++i) __builtin_memcpy(words + b + i, block + i * kBytes, 4);
  }
  for (; b < blocks; ++b, block += kBytes) __builtin_memcpy(words + b, block, 4);
}
/// The words as scales and, kSmallBlocks behind them, minima.
template <bool kMinimum>
GRAFT_SIMD_INLINE void convert_words(const std::int32_t* words, Index blocks,
                                     float* scales) noexcept {
  for (Index b = 0; b < blocks; b += kLanes) {
    const Ints word = load(words + b);
    store(scales + b, low_halves(word));
    if constexpr (kMinimum) store(scales + kSmallBlocks + b, low_halves(word >> 16));
  }
}

// How a format is walked: kBlocks blocks of kElements values and kBytes bytes in a step. scales()
// writes what the weights of a step are scaled by; what it reads of small blocks, gather() copies
// before, so that the copies of all rows have left for the cache. add() adds the products with
// block b of a step, whose values begin at column `first`.

/// 32 values behind an f16 scale and perhaps an f16 minimum.
template <Index kSize, bool kMinimum>
struct DotSmallBlocks {
  static constexpr Index kElements = 32, kBytes = kSize, kBlocks = kSmallBlocks,
                         kWords = kSmallBlocks + kLanes;
  GRAFT_SIMD_INLINE static void gather(const std::uint8_t* block, Index blocks,
                                       std::int32_t* words) noexcept {
    gather_words<kBytes>(block, blocks, words);
  }
  GRAFT_SIMD_INLINE static void scales(const std::uint8_t*, const std::int32_t* words, Index blocks,
                                       float* to) noexcept {
    convert_words<kMinimum>(words, blocks, to);
  }
};

template <int kOffset, bool kMinimum>
struct DotNibbles : DotSmallBlocks<kMinimum ? 20 : 18, kMinimum> {
  template <int R>
  GRAFT_SIMD_INLINE static void add(const std::uint8_t* block, Index b, const float* scales,
                                    const float* const* x, Index first, DotSums<R>& sums) noexcept {
    const float *const d = scales + b, *const m = d + kSmallBlocks;
    add_nibbles<kOffset, kMinimum>(block + (kMinimum ? 4 : 2), d, m, d, m, x, first, first + 16,
                                   sums);
  }
};
using DotQ40 = DotNibbles<8, false>;
using DotQ41 = DotNibbles<0, true>;

struct DotQ80 : DotSmallBlocks<34, false> {
  template <int R>
  GRAFT_SIMD_INLINE static void add(const std::uint8_t* block, Index b, const float* scales,
                                    const float* const* x, Index first, DotSums<R>& sums) noexcept {
    GRAFT_UNROLL
    for (int i = 0; i < 32; i += kLanes)
      sums.add(x, first + i, i / kLanes, scales[b] * to_floats(load_i8(block + 2 + i)));
  }
};

struct DotQ4K {
  static constexpr Index kElements = 256, kBytes = 144, kBlocks = 8, kWords = 40;
  /// Four words with a scale or minimum a byte for each block, then the words of d and dmin.
  GRAFT_SIMD_INLINE static void gather(const std::uint8_t* block, Index blocks,
                                       std::int32_t* words) noexcept {
    // The twelve bytes as words: six low bits of scales 0 to 3, of minima 0 to 3, four low bits of
    // both 4 to 7, whose upper ones are those left over.
    for (Index b = 0; b < blocks; ++b, block += kBytes) {
      std::uint32_t packed[3];
      __builtin_memcpy(packed, block + 4, 12);
      const std::uint32_t bytes[4] = {
          packed[0] & 0x3f3f3f3fU,
          (packed[2] & 0x0f0f0f0fU) | (packed[0] >> 2 & 0x30303030U),
          packed[1] & 0x3f3f3f3fU,
          (packed[2] >> 4 & 0x0f0f0f0fU) | (packed[1] >> 2 & 0x30303030U),
      };
      __builtin_memcpy(words + 4 * b, bytes, 16);
      __builtin_memcpy(words + 32 + b, block, 4);
    }
  }
  GRAFT_SIMD_INLINE static void scales(const std::uint8_t*, const std::int32_t* words, Index blocks,
                                       float* to) noexcept {
    for (Index b = 0; b < blocks; ++b, to += 16) {
      const auto* const bytes = reinterpret_cast<const std::uint8_t*>(words + 4 * b);
      const auto* const halves = reinterpret_cast<const std::uint8_t*>(words + 32 + b);
      const float d = half_value(halves), dmin = half_value(halves + 2);
      GRAFT_UNROLL
      for (int i = 0; i < 16; i += kLanes) {
        const Ints scale = lane_numbers() + i < 8;
        store(to + i,
              select(scale, broadcast(d), broadcast(-dmin)) * to_floats(load_u8(bytes + i)));
      }
    }
  }
  template <int R>
  GRAFT_SIMD_INLINE static void add(const std::uint8_t* block, Index b, const float* scales,
                                    const float* const* x, Index first, DotSums<R>& sums) noexcept {
    scales += 16 * b;
    GRAFT_UNROLL
    for (int pair = 0; pair < 4; ++pair) {
      GRAFT_UNROLL
      for (int i = 0; i < 32; i += 16)
        add_nibbles<0, true>(block + 16 + 32 * pair + i, scales + 2 * pair, scales + 8 + 2 * pair,
                             scales + 2 * pair + 1, scales + 9 + 2 * pair, x, first + 64 * pair + i,
                             first + 64 * pair + 32 + i, sums);
    }
  }
};

struct DotQ6K {
  static constexpr Index kElements = 256, kBytes = 210, kBlocks = 1, kWords = 1;
  GRAFT_SIMD_INLINE static void gather(const std::uint8_t*, Index, std::int32_t*) noexcept {}
  GRAFT_SIMD_INLINE static void scales(const std::uint8_t* block, const std::int32_t*, Index,
                                       float* to) noexcept {
    const float d = half_value(block + 208);
    GRAFT_UNROLL
    for (int i = 0; i < 16; i += kLanes) store(to + i, d * to_floats(load_i8(block + 192 + i)));
  }
  template <int R>
  GRAFT_SIMD_INLINE static void add(const std::uint8_t* block, Index, const float* scales,
                                    const float* const* x, Index first, DotSums<R>& sums) noexcept {
    for (int half = 0; half < 2; ++half, first += 128) {
      const std::uint8_t* const low = block + 64 * half;
      const std::uint8_t* const high = block + 128 + 32 * half;
      GRAFT_UNROLL
      for (int i = 0; i < 32; i += kLanes) {
        Ints codes[4];
        q6_k_codes(low + i, high + i, codes);
        GRAFT_UNROLL
        for (int part = 0; part < 4; ++part)
          sums.add(x, first + 32 * part + i, part,
                   scales[8 * half + 2 * part + i / 16] * to_floats(codes[part] - 32));
      }
    }
  }
};

/// 32 values of two bytes without a scale.
struct DotPlain {
  static constexpr Index kElements = 32, kBytes = 64, kBlocks = 1, kWords = 1;
  GRAFT_SIMD_INLINE static void gather(const std::uint8_t*, Index, std::int32_t*) noexcept {}
  GRAFT_SIMD_INLINE static void scales(const std::uint8_t*, const std::int32_t*, Index,
                                       float*) noexcept {}
};

struct DotBf16 : DotPlain {
  template <int R>
  GRAFT_SIMD_INLINE static void add(const std::uint8_t* block, Index, const float*,
                                    const float* const* x, Index first, DotSums<R>& sums) noexcept {
    GRAFT_UNROLL
    for (int i = 0; i < 32; i += kLanes)
      sums.add(x, first + i, i / kLanes, reinterpret_cast<Floats>(load_u16(block + 2 * i) << 16));
  }
};

struct DotF16 : DotPlain {
  template <int R>
  GRAFT_SIMD_INLINE static void add(const std::uint8_t* block, Index, const float*,
                                    const float* const* x, Index first, DotSums<R>& sums) noexcept {
    GRAFT_UNROLL
    for (int i = 0; i < 32; i += kLanes)
      sums.add(x, first + i, i / kLanes, low_halves(load_u16(block + 2 * i)));
  }
};

/// Products of C rows of weights with R rows of x: out[r · C + c]. What lies `ahead` bytes further
/// is fetched into the cache.
template <class F, int R, int C>
GRAFT_SIMD_FN GRAFT_NOINLINE void dot_tile(const std::uint8_t* const* rows, Index ahead, Index in,
                                           const float* const* x, float* out) noexcept {
  DotSums<R> sums[C] = {};
  std::int32_t words[C][F::kWords];
  float scales[C][2 * kSmallBlocks];
  const std::uint8_t* blocks[C];
  GRAFT_UNROLL
  for (int c = 0; c < C; ++c) blocks[c] = rows[c];
  for (Index first = 0; first < in;) {
    const Index count = std::min(F::kBlocks, (in - first) / F::kElements);
    GRAFT_UNROLL
    for (int c = 0; c < C; ++c) F::gather(blocks[c], count, words[c]);
    GRAFT_UNROLL
    for (int c = 0; c < C; ++c) F::scales(blocks[c], words[c], count, scales[c]);
    for (Index b = 0; b < count; ++b, first += F::kElements) {
      GRAFT_UNROLL
      for (int c = 0; c < C; ++c) {
        if (F::kBytes > 64 || b % 2 == 0) {
          for (Index line = 0; line < F::kBytes; line += 64)
            __builtin_prefetch(blocks[c] + ahead + line);
        }
        F::add(blocks[c], b, scales[c], x, first, sums[c]);
        blocks[c] += F::kBytes;
      }
    }
  }
  static_assert(R * C % 4 == 0);
  Floats flat[R * C];
  GRAFT_UNROLL
  for (int i = 0; i < R * C; ++i) flat[i] = sums[i % C].sum(i / C);
  GRAFT_UNROLL
  for (int i = 0; i < R * C; i += 4)
    *reinterpret_cast<kernels::VecOf<float, 4>::unaligned*>(out + i) =
        add_lanes(flat[i], flat[i + 1], flat[i + 2], flat[i + 3]);
}

template <class F, int R>
GRAFT_SIMD_FN inline void dot_rows(const std::uint8_t* rows, Index row_bytes, Index count, Index in,
                                   const float* const* x, Index m, float* y, Index ldy) noexcept {
  constexpr int C = R == 1 ? 4 : kLanes == 16 ? 2 : 1;
  float out[R * C];
  const std::uint8_t* row[C];
  // Whole steps of rows, 8 KiB or so.
  const Index step = C * std::max<Index>(row_bytes, 1);
  const Index ahead = (8192 + step - 1) / step * step;
  for (Index j = 0; j < count; j += C) {
    for (int c = 0; c < C; ++c)  // beyond the last row: that one again
      row[c] = rows + std::min(j + c, count - 1) * row_bytes;
    dot_tile<F, R, C>(row, ahead, in, x, out);
    for (Index r = 0; r < m; ++r)
      for (int c = 0; c < C && j + c < count; ++c) y[r * ldy + j + c] = out[r * C + c];
  }
}

/// The kernels::DotRows of a format.
template <class F>
GRAFT_SIMD_FN inline void dot(const void* rows, Index row_bytes, Index count, Index in,
                              const float* x, Index m, Index ldx, float* y, Index ldy) noexcept {
  const auto* const bytes = static_cast<const std::uint8_t*>(rows);
  if (m == 1) return dot_rows<F, 1>(bytes, row_bytes, count, in, &x, 1, y, ldy);
  for (Index i = 0; i < m; i += 4, y += 4 * ldy) {
    const float* four[4];
    for (Index r = 0; r < 4; ++r) four[r] = x + std::min(i + r, m - 1) * ldx;
    dot_rows<F, 4>(bytes, row_bytes, count, in, four, std::min<Index>(4, m - i), y, ldy);
  }
}

}  // namespace graft::inline v0_1::quant::detail::GRAFT_SIMD_NS
