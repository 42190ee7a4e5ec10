// Decoders into panels for one instruction set; see panel.hpp. No include guard.
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

/// The word of 32 bits at `at` in each of `rows` ≤ kLanes rows, the other lanes zero; 16 bytes of a
/// row can be read there.
GRAFT_SIMD_INLINE Ints load_heads(const std::uint8_t* at, Index row_bytes, Index rows) noexcept {
  if (rows == kLanes) {
    Floats words[4];
    load_words(at, row_bytes, words);
    return kernels::GRAFT_SIMD_NS::bits_of(words[0]);
  }
  std::int32_t heads[kLanes] = {};
  for (Index r = 0; r < rows; ++r) __builtin_memcpy(heads + r, at + r * row_bytes, 4);
  return load(heads);
}

// Blocks of kLanes rows: `read` takes from their first words what the values of a row share, and
// `value` gives that of the code at bit `shift` of a word.

/// The four bits at bit `shift` of a word, where they are but for the topmost, and what they are to
/// be multiplied by: a power of two costs no bit and spares a shift.
GRAFT_SIMD_INLINE Ints nibble(Ints word, int shift) noexcept {
  return shift < 28 ? word & (15 << shift) : (word >> 28) & 15;
}
GRAFT_SIMD_INLINE int nibble_unit(int shift) noexcept { return shift < 28 ? 1 << shift : 1; }

struct PanelQ40 {
  static constexpr Index kBytes = 18, kCodes = 2;
  static constexpr int kBits = 4, kShared = 1;
  GRAFT_SIMD_INLINE static void read(Ints heads, Floats* shared) noexcept {
    shared[0] = half_values(heads & 0xffff);
  }
  GRAFT_SIMD_INLINE static Floats value(Ints word, int shift, const Floats* shared) noexcept {
    const int unit = nibble_unit(shift);
    return shared[0] * (1.0F / static_cast<float>(unit)) *
           to_floats(nibble(word, shift) - 8 * unit);
  }
};

struct PanelQ41 {
  static constexpr Index kBytes = 20, kCodes = 4;
  static constexpr int kBits = 4, kShared = 2;
  GRAFT_SIMD_INLINE static void read(Ints heads, Floats* shared) noexcept {
    shared[0] = half_values(heads & 0xffff);
    shared[1] = half_values((heads >> 16) & 0xffff);
  }
  GRAFT_SIMD_INLINE static Floats value(Ints word, int shift, const Floats* shared) noexcept {
    return shared[0] * (1.0F / static_cast<float>(nibble_unit(shift))) *
               to_floats(nibble(word, shift)) +
           shared[1];
  }
};

struct PanelIq4Nl : PanelQ40 {
  GRAFT_SIMD_INLINE static Floats value(Ints word, int shift, const Floats* shared) noexcept {
    return shared[0] * lookup16(kIq4Values, (word >> shift) & 15);
  }
};

struct PanelQ80 : PanelQ40 {
  static constexpr Index kBytes = 34;
  static constexpr int kBits = 8;
  GRAFT_SIMD_INLINE static Floats value(Ints word, int shift, const Floats* shared) noexcept {
    return shared[0] * to_floats((word << (24 - shift)) >> 24);
  }
};

// Blocks of 32 values: 4-bit codes as those of Q4_0, or bytes.

template <class Block>
GRAFT_SIMD_FN void decode_panel(const void* rows, Index row_bytes, Index first, Index count,
                                float* to) noexcept {
  constexpr Index kPanel = kernels::detail::kPanel;
  const std::uint8_t* at = block_at(rows, first, 32, Block::kBytes);
  for (Index l = 0; l < count; l += 32, at += Block::kBytes, to += 32 * kPanel) {
    for (Index r = 0; r < kPanel; r += kLanes) {
      const std::uint8_t* const block = at + r * row_bytes;
      Floats shared[Block::kShared];
      Block::read(load_heads(block, row_bytes, kLanes), shared);
      for (int run = 0; run < Block::kBits / 4; ++run) {
        Floats words[4];
        load_words(block + Block::kCodes + 16 * run, row_bytes, words);
        float* const panel = to + 16 * run * kPanel + r;
        GRAFT_UNROLL
        for (int i = 0; i < 16; ++i) {
          const Ints word = kernels::GRAFT_SIMD_NS::bits_of(words[i / 4]);
          const int shift = i % 4 * 8;
          store(panel + i * kPanel, Block::value(word, shift, shared));
          if constexpr (Block::kBits == 4)
            store(panel + (16 + i) * kPanel, Block::value(word, shift + 4, shared));
        }
      }
    }
  }
}

template <class Block>
GRAFT_SIMD_FN void decode_columns(const void* rows, Index row_bytes, Index first, Index count,
                                  float* to) noexcept {
  const std::uint8_t* at = block_at(rows, first, 32, Block::kBytes);
  for (Index l = 0; l < count; l += kLanes) {
    const Index here = std::min<Index>(kLanes, count - l);
    Floats shared[Block::kShared];
    Block::read(load_heads(at, row_bytes, here), shared);
    float lanes[Block::kShared][kLanes];
    GRAFT_UNROLL
    for (int s = 0; s < Block::kShared; ++s) store(lanes[s], shared[s]);
    for (Index r = 0; r < here; ++r, at += row_bytes, to += kernels::detail::kPanel) {
      GRAFT_UNROLL
      for (int s = 0; s < Block::kShared; ++s) shared[s] = broadcast(lanes[s][r]);
      GRAFT_UNROLL
      for (int i = 0; i < 4 * Block::kBits; i += kLanes) {
        const Ints codes = load_u8(at + Block::kCodes + i);
        store(to + i, Block::value(codes, 0, shared));
        if constexpr (Block::kBits == 4) store(to + 16 + i, Block::value(codes, 4, shared));
      }
    }
  }
}

}  // namespace graft::inline v0_1::quant::detail::GRAFT_SIMD_NS
