// Decoders of rows into panels for one instruction set; see panel.hpp. No include guard.
namespace graft::inline v0_1::quant::detail::GRAFT_SIMD_NS {

using kernels::GRAFT_SIMD_NS::transpose_quads;

/// Word i of 32 bits at `at` in each of kLanes rows, as words[i].
GRAFT_SIMD_INLINE void load_words(const std::uint8_t* at, Index row_bytes,
                                  Floats (&words)[4]) noexcept {
  using Quad = kernels::VecOf<float, 4>;
  for (int i = 0; i < 4; ++i) {
    // Part p of the vector is row 4 p + i: the transpose then leaves the rows in order.
    typename Quad::type part[kLanes / 4];
    GRAFT_UNROLL
    for (int p = 0; p < kLanes / 4; ++p)
      __builtin_memcpy(&part[p], at + (4 * p + i) * row_bytes, sizeof part[p]);
#if GRAFT_SIMD_BYTES == 64
    const auto low = __builtin_shufflevector(part[0], part[1], 0, 1, 2, 3, 4, 5, 6, 7);
    const auto high = __builtin_shufflevector(part[2], part[3], 0, 1, 2, 3, 4, 5, 6, 7);
    words[i] =
        __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
#elif GRAFT_SIMD_BYTES == 32
    words[i] = __builtin_shufflevector(part[0], part[1], 0, 1, 2, 3, 4, 5, 6, 7);
#else
    words[i] = part[0];
#endif
  }
  transpose_quads(words);
}

/// The f16 value at `at` in each of kLanes rows.
GRAFT_SIMD_INLINE Floats load_halves(const std::uint8_t* at, Index row_bytes) noexcept {
  Ints halves{};
  GRAFT_UNROLL
  for (int r = 0; r < kLanes; ++r) halves[r] = half_word(at + r * row_bytes);
  return half_values(halves);
}

// Blocks of kLanes rows: what their values share, and the value of a code.

struct PanelScale {
  Floats d;
  GRAFT_SIMD_INLINE void read(const std::uint8_t* block, Index row_bytes) noexcept {
    d = load_halves(block, row_bytes);
  }
};

struct PanelQ40 : PanelScale {
  static constexpr Index kBytes = 18, kCodes = 2;
  static constexpr int kBits = 4;
  GRAFT_SIMD_INLINE Floats value(Ints code) const noexcept { return d * to_floats(code - 8); }
};

struct PanelQ41 : PanelScale {
  static constexpr Index kBytes = 20, kCodes = 4;
  static constexpr int kBits = 4;
  Floats m;
  GRAFT_SIMD_INLINE void read(const std::uint8_t* block, Index row_bytes) noexcept {
    PanelScale::read(block, row_bytes);
    m = load_halves(block + 2, row_bytes);
  }
  GRAFT_SIMD_INLINE Floats value(Ints code) const noexcept { return d * to_floats(code) + m; }
};

struct PanelIq4Nl : PanelScale {
  static constexpr Index kBytes = 18, kCodes = 2;
  static constexpr int kBits = 4;
  GRAFT_SIMD_INLINE Floats value(Ints code) const noexcept {
    return d * lookup16(kIq4Values, code);
  }
};

struct PanelQ80 : PanelScale {
  static constexpr Index kBytes = 34, kCodes = 2;
  static constexpr int kBits = 8;
  GRAFT_SIMD_INLINE Floats value(Ints code) const noexcept { return d * to_floats(code); }
};

/// Blocks of 32 values: 4-bit codes as those of Q4_0, or bytes.
template <class Block>
GRAFT_SIMD_FN void decode_panel(const void* rows, Index row_bytes, Index first, Index count,
                                float* to) noexcept {
  constexpr Index kPanel = kernels::detail::kPanel;
  const std::uint8_t* at = block_at(rows, first, 32, Block::kBytes);
  for (Index l = 0; l < count; l += 32, at += Block::kBytes, to += 32 * kPanel) {
    for (Index r = 0; r < kPanel; r += kLanes) {
      const std::uint8_t* const block = at + r * row_bytes;
      Block values;
      values.read(block, row_bytes);
      for (int run = 0; run < Block::kBits / 4; ++run) {
        Floats words[4];
        load_words(block + Block::kCodes + 16 * run, row_bytes, words);
        float* const panel = to + 16 * run * kPanel + r;
        GRAFT_UNROLL
        for (int i = 0; i < 16; ++i) {
          const Ints word = kernels::GRAFT_SIMD_NS::bits_of(words[i / 4]);
          const int shift = i % 4 * 8;
          if constexpr (Block::kBits == 8) {
            store(panel + i * kPanel, values.value((word << (24 - shift)) >> 24));
          } else {
            store(panel + i * kPanel, values.value((word >> shift) & 15));
            store(panel + (16 + i) * kPanel, values.value((word >> (shift + 4)) & 15));
          }
        }
      }
    }
  }
}

}  // namespace graft::inline v0_1::quant::detail::GRAFT_SIMD_NS
