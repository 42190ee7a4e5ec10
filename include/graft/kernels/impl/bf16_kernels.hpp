// Products of pairs of bf16 values with f32 sums, for processors with AVX512-BF16. No include
// guard.
//
// A word holds two values of neighbouring k, the first one in its low half. Panels are [⌈k /
// 2⌉][32] words.
namespace graft::inline v0_1::kernels::GRAFT_SIMD_NS {

using namespace avx512;
using graft::kernels::detail::Bf16Product;

/// sum + a₀ b₀ + a₁ b₁ by lanes.
GRAFT_SIMD_INLINE Floats dot_pairs(Ints a, Ints b, Floats sum) noexcept {
  // The names and types of the built-in functions differ between compilers.
  asm("vdpbf16ps {%2, %1, %0|%0, %1, %2}" : "+v"(sum) : "v"(a), "v"(b));
  return sum;
}

/// 32 values rounded to the nearest bf16, ties to even: those of `first` in the lower half. What is
/// below the normal numbers becomes zero, as in dot_pairs.
GRAFT_SIMD_INLINE Ints round_pairs(Floats first, Floats second) noexcept {
  Ints words;
  asm("vcvtne2ps2bf16 {%2, %1, %0|%0, %1, %2}" : "=v"(words) : "v"(second), "v"(first));
  return words;
}

/// `count` values as words, and zero words up to word number `words`, a multiple of kLanes.
GRAFT_SIMD_FN inline void round_row(const float* x, Index count, std::uint32_t* to,
                                    Index words) noexcept {
  auto* const end = reinterpret_cast<std::int32_t*>(to) + words;
  auto* p = reinterpret_cast<std::int32_t*>(to);
  for (; count >= 2 * kLanes; count -= 2 * kLanes, x += 2 * kLanes, p += kLanes)
    store(p, round_pairs(load(x), load(x + kLanes)));
  for (; p < end; p += kLanes) {
    const Index first = std::min<Index>(count, kLanes), second = count - first;
    store(p, round_pairs(load_partial(x, first), load_partial(x + first, second)));
    x += count;
    count = 0;
  }
}

/// Rows of x (count × k) as words, word_stride apart, with zero words from k on.
GRAFT_SIMD_FN inline void round_rows(const float* x, Index ldx, Index count, Index k,
                                     std::uint32_t* words, Index word_stride) noexcept {
  for (Index i = 0; i < count; ++i) round_row(x + i * ldx, k, words + i * word_stride, word_stride);
}

/// pack_tile_rows where low_offset is 0.
GRAFT_SIMD_FN inline void pack_tile_pairs(const float* x, Index ldx, Index rows, Index k,
                                          std::uint32_t* words, Index) noexcept {
  for (Index i = 0; i < 16; ++i, words += 16) {
    auto* tile = reinterpret_cast<std::int32_t*>(words);
    for (Index l = 0; l < k; l += 2 * kLanes, tile += 256) {
      const Index left = i < rows ? k - l : 0;
      const float* const from = x + i * ldx + l;
      store(tile,
            left >= 2 * kLanes
                ? round_pairs(load(from), load(from + kLanes))
                : round_pairs(load_partial(from, std::min<Index>(left, kLanes)),
                              load_partial(from + kLanes, std::max<Index>(left - kLanes, 0))));
    }
  }
}

/// Two rows of n values, the second one zero if null, as words that hold a value of each, and zeros
/// up to whole panels, which lie panel_size words apart.
GRAFT_SIMD_FN inline void interleave_rows(const float* first, const float* second, Index n,
                                          std::uint32_t* to, Index panel_size) noexcept {
  using Halves = Vec<std::uint16_t, 2 * kLanes>;
  Halves order{};
  GRAFT_UNROLL
  for (int i = 0; i < kLanes; ++i) {
    order[2 * i] = static_cast<std::uint16_t>(i);
    order[2 * i + 1] = static_cast<std::uint16_t>(kLanes + i);
  }
  for (Index j = 0; j < n; j += kPanel, to += panel_size) {
    GRAFT_UNROLL
    for (int i = 0; i < kPanel; i += kLanes) {
      const Index left = std::clamp<Index>(n - j - i, 0, kLanes);
      Floats v[2] = {};
      if (left == kLanes) {
        v[0] = load(first + j + i);
        if (second != nullptr) v[1] = load(second + j + i);
      } else {
        v[0] = load_partial(first + j + i, left);
        if (second != nullptr) v[1] = load_partial(second + j + i, left);
      }
      const Ints rounded = round_pairs(v[0], v[1]);
      Ints words;
      asm("vpermw {%1, %2, %0|%0, %2, %1}" : "=v"(words) : "v"(rounded), "v"(order));
      store(reinterpret_cast<std::int32_t*>(to) + i, words);
    }
  }
}

/// fill_word_panels without f32 panels in between, for operands that are stored by rows.
GRAFT_SIMD_FN inline void fill_pair_panels(const RightOperand& b, Index first_k, Index k,
                                           Index first_n, Index n, std::uint32_t* words,
                                           float* floats, float* decoded) noexcept {
  constexpr Index kStep = graft::kernels::detail::kDecodeStep;
  constexpr Index kStride = kStep / 2 + 16;  // not a multiple of 1 KiB
  const char* const blocks = static_cast<const char*>(b.blocks);
  const Index depth = (k + 1) / 2;
  if (b.form == RightOperand::Form::n_rows) {
    auto* const rounded = reinterpret_cast<std::uint32_t*>(floats);
    for (Index j = 0; j < n; j += kPanel, words += depth * kPanel) {
      const Index rows = std::min(kPanel, n - j);
      for (Index l = 0; l < k; l += kStep) {
        const Index count = std::min(kStep, k - l);
        const Index pairs = (count + 1) / 2;
        for (Index r = 0; r < rows; ++r) {
          const float* values = decoded;
          if (b.decode != nullptr) {
            const Index row = first_n + j + r;
            prefetch_row(b, row, kPanel, first_k + l, count);
            b.decode(blocks + row * b.row_bytes, first_k + l, count, decoded);
          } else {
            values = b.data + (first_n + j + r) * b.stride + first_k + l;
          }
          round_row(values, count, rounded + r * kStride,
                    graft::kernels::detail::round_up(pairs, kLanes));
        }
        transpose_to_panel(floats, kStride, rows, pairs,
                           reinterpret_cast<float*>(words + l / 2 * kPanel));
      }
    }
  } else if (b.form == RightOperand::Form::k_rows) {
    constexpr Index kRow = graft::kernels::detail::kDecodeStride;
    for (Index l = 0; l < k; l += 2) {
      const float* rows[2] = {};
      for (Index r = 0; r < std::min<Index>(2, k - l); ++r) {
        const Index row = first_k + l + r;
        rows[r] = decoded + r * kRow;
        if (b.decode == nullptr) {
          rows[r] = b.data + row * b.stride + first_n;
        } else {
          prefetch_row(b, row, kRowsAhead, first_n, n);
          b.decode(blocks + row * b.row_bytes, first_n, n, decoded + r * kRow);
        }
      }
      interleave_rows(rows[0], rows[1], n, words + l / 2 * kPanel, depth * kPanel);
    }
  } else {
    fill_word_panels(b, first_k, k, first_n, n, words, floats, decoded);
  }
}

struct PairTile {
  const std::uint32_t* a;
  Index a_row;
  Index a_k = 1;  // from a word to the next one
  const std::uint32_t* b;
  Index depth;  // in words
  const float* h;
  const float* prefetch;
  Index prefetch_step;
  Index rows;
};

/// R rows, of which the first `rows` are stored; the others are read and must exist.
template <int R>
GRAFT_SIMD_FN GRAFT_NOINLINE void pair_tile(const PairTile& p, const Tile& t) noexcept {
  Floats c[R][2] = {};
  const std::uint32_t* a = p.a;
  const auto* b = reinterpret_cast<const std::int32_t*>(p.b);
  const float* prefetch = p.prefetch;
  for (Index l = 0; l < p.depth; ++l) {
    __builtin_prefetch(prefetch, 0, 2);
    prefetch += p.prefetch_step;
    const Ints w0 = load(b), w1 = load(b + kLanes);
    GRAFT_UNROLL
    for (int i = 0; i < R; ++i) {
      const Ints v = broadcast(static_cast<std::int32_t>(a[i * p.a_row]));
      c[i][0] = dot_pairs(v, w0, c[i][0]);
      c[i][1] = dot_pairs(v, w1, c[i][1]);
    }
    a += p.a_k;
    b += kPanel;
  }
  if (t.rank > 0)
    tile_steps<R>(c, t.h, t.ldh, 1, t.p, t.ldp, t.rank, reinterpret_cast<const char*>(t.p), 0);
  if (p.rows == R) {
    tile_store<R>(c, t);
  } else {
    Floats most[R - 1][2];
    GRAFT_UNROLL
    for (int i = 0; i < R - 1; ++i) {
      most[i][0] = c[i][0];
      most[i][1] = c[i][1];
    }
    tile_store<R - 1>(most, t);
  }
}

/// Rows of the next tile where `left` remain: tiles of nearly the same, even height.
inline Index next_pair_tile_rows(Index left) noexcept {
  const Index tiles = (left + kMaxTileRows - 1) / kMaxTileRows;
  return std::min(((left + tiles - 1) / tiles + 1) / 2 * 2, left);
}

GRAFT_SIMD_FN inline void run_pair_tile(const PairTile& p, const Tile& t) noexcept {
  switch ((p.rows + 1) / 2) {
    case 1:
      return pair_tile<2>(p, t);
    case 2:
      return pair_tile<4>(p, t);
    case 3:
      return pair_tile<6>(p, t);
    case 4:
      return pair_tile<8>(p, t);
    case 5:
      return pair_tile<10>(p, t);
    case 6:
      return pair_tile<12>(p, t);
    case 7:
      return pair_tile<14>(p, t);
    default:
      return;
  }
}

/// Products of blocks of attention on operands rounded to bf16; see FloatProducts. What has been
/// rounded lies in scratch, which a copy of the object goes on from.
class PairProducts {
 public:
  static constexpr bool kCopies = true;
  struct Left {
    const std::uint32_t* words;
    Index row, k;
  };
  struct Right {
    const std::uint32_t* words;
    Index panel_size;
  };

  explicit PairProducts(float* scratch) noexcept
      : next_(reinterpret_cast<std::uint32_t*>(scratch)) {}

  GRAFT_SIMD_FN Left rows(const float* a, Index lda, Index m, Index k) noexcept {
    const Index stride = graft::kernels::detail::word_stride(k);
    std::uint32_t* const to = take((m + 1) * stride);
    round_rows(a, lda, m, k, to, stride);
    return {to, stride, 1};
  }
  GRAFT_SIMD_FN Left columns(const float* a, Index lda, Index m, Index k) noexcept {
    const Index width = graft::kernels::detail::round_up(m, kPanel);
    return {pairs_of_rows(a, lda, k, m, width, kPanel), 1, width};
  }
  GRAFT_SIMD_FN Right right(const float* b, Index ldb, Index k, Index n) noexcept {
    const Index panel_size = (k + 1) / 2 * kPanel;
    return {pairs_of_rows(b, ldb, k, n, kPanel, panel_size), panel_size};
  }
  GRAFT_SIMD_FN static void product(Index m, Index n, Index k, Left a, Right b, float beta,
                                    float* c, Index ldc) noexcept {
    PairTile p{};
    p.a_row = a.row;
    p.a_k = a.k;
    p.depth = (k + 1) / 2;
    Tile t{};
    t.ldc = ldc;
    t.alpha = 1.0f;
    t.beta = beta;
    for (Index j = 0; j < n; j += kPanel) {
      p.b = b.words + j / kPanel * b.panel_size;
      p.prefetch = reinterpret_cast<const float*>(p.b);
      t.cols = std::min<Index>(kPanel, n - j);
      for (Index i = 0; i < m; i += p.rows) {
        p.rows = next_pair_tile_rows(m - i);
        p.a = a.words + i * a.row;
        t.c = c + i * ldc + j;
        run_pair_tile(p, t);
      }
    }
  }

 private:
  /// Neighbouring rows of x (k × n) as words, `step` words from a pair to the next one and
  /// panel_size between its panels.
  GRAFT_SIMD_FN const std::uint32_t* pairs_of_rows(const float* x, Index ldx, Index k, Index n,
                                                   Index step, Index panel_size) noexcept {
    std::uint32_t* const to = take((k + 1) / 2 * graft::kernels::detail::round_up(n, kPanel));
    for (Index l = 0; l < k; l += 2)
      interleave_rows(x + l * ldx, l + 1 < k ? x + (l + 1) * ldx : nullptr, n, to + l / 2 * step,
                      panel_size);
    return to;
  }
  std::uint32_t* take(Index count) noexcept {
    std::uint32_t* const start = next_;
    next_ += graft::kernels::detail::round_up(count, kLanes);
    return start;
  }
  std::uint32_t* next_;
};

/// One task of the product: row_block × col_block elements of C, over all of k.
GRAFT_SIMD_FN inline void run_pair_task(const Bf16Product& q, Index task, float* scratch) noexcept {
  const Index row0 = task / q.col_blocks() * q.row_block;
  const Index col0 = task % q.col_blocks() * q.col_block;
  const Index rows = std::min(q.row_block, q.m - row0);
  const Index cols = std::min(q.col_block, q.n - col0);
  auto* const panels = reinterpret_cast<std::uint32_t*>(scratch + q.panel_offset);
  float* const low_rank = scratch + q.p_offset;
  const Index tail = cols % kPanel;
  if (q.rank > 0 && tail != 0) {
    for (Index r = 0; r < q.rank; ++r)
      for (Index j = 0; j < kPanel; ++j)
        low_rank[r * kPanel + j] = j < tail ? q.p[r * q.ldp + col0 + cols - tail + j] : 0.0f;
  }
  const Index padded_n = graft::kernels::detail::round_up(q.n, kPanel);
  Tile t{};
  PairTile p{};
  p.a_row = q.word_stride;
  t.ldh = q.ldh;
  t.ldc = q.ldc;
  t.alpha = 1.0f;
  for (Index k0 = 0; k0 == 0 || k0 < q.k; k0 += q.depth) {
    const Index depth = std::min(q.depth, q.k - k0);
    const bool last = k0 + depth >= q.k;
    p.depth = (depth + 1) / 2;
    if (!q.ready)
      fill_pair_panels(q.b, k0, depth, col0, cols, panels, scratch + q.c_offset,
                       scratch + q.decode_offset);
    t.rank = last ? q.rank : 0;
    t.beta = k0 > 0 ? 1.0f : q.beta;
    for (Index r0 = 0; r0 < rows; r0 += q.inner_rows) {
      const Index inner = std::min(q.inner_rows, rows - r0);
      for (Index j = 0; j < cols; j += kPanel) {
        const Index width = std::min(kPanel, cols - j);
        const std::uint32_t* panel =
            q.ready ? q.b.words + k0 / 2 * padded_n + (col0 + j) * p.depth : panels + j * p.depth;
        const auto* next = reinterpret_cast<const float*>(panel + p.depth * kPanel);
        int number = 0;
        for (Index i = 0; i < inner; ++number) {
          p.rows = next_pair_tile_rows(inner - i);
          const Index row = row0 + r0 + i;
          p.a = q.words + row * q.word_stride + k0 / 2;
          t.h = q.h + row * q.ldh;
          for (Index sub = 0; sub < width; sub += kTileCols) {
            p.prefetch = reinterpret_cast<const float*>(panel);
            p.prefetch_step = 0;
            if (q.ready && r0 == 0 && sub == 0 && number < 2) {
              p.prefetch = next + number * p.depth * kPanel / 2;
              p.prefetch_step = p.rows == inner ? kPanel : kPanel / 2;
            }
            p.b = panel + sub;
            t.cols = std::min<Index>(kTileCols, width - sub);
            const Index col = col0 + j + sub;
            t.bias = last && q.bias != nullptr ? q.bias + col : nullptr;
            if (t.rank > 0) {
              t.p = width == kPanel ? q.p + col : low_rank + sub;
              t.ldp = width == kPanel ? q.ldp : kPanel;
            }
            t.c = q.c + row * q.ldc + col;
            run_pair_tile(p, t);
          }
          i += p.rows;
        }
      }
    }
  }
}

}  // namespace graft::inline v0_1::kernels::GRAFT_SIMD_NS
