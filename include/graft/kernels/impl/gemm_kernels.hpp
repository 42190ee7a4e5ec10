// Products of one instruction set: register tiles, panels, and the loops around them. No include
// guard.
namespace graft::inline v0_1::kernels::GRAFT_SIMD_NS {

using graft::kernels::detail::kPanel;
using graft::kernels::detail::Product;
using graft::kernels::detail::RightOperand;

// ---------------------------------------------------------------------------------------------------------
// Register tiles: R rows × 2 vectors of C.

inline constexpr int kTileCols = 2 * kLanes;
#if GRAFT_SIMD_BYTES == 64
inline constexpr int kMaxTileRows = 14;  // 28 of 32 registers accumulate
#else
inline constexpr int kMaxTileRows = 6;  // 12 of 16
#endif

struct Tile {
  const float* a;
  Index a_row, a_k;
  const float* b;  // one tile of a panel: b[l · b_k + j]
  Index b_k, k;
  const float* h;
  Index ldh;
  const float* p;
  Index ldp, rank;
  const float* bias;
  float* c;
  Index ldc, cols;
  float alpha, beta;
  const char* prefetch;  // what each step along k fetches, prefetch_step bytes after the last
  Index prefetch_step;
};

template <int R>
GRAFT_SIMD_INLINE void tile_steps(Floats (&c)[R][2], const float* a, Index a_row, Index a_k,
                                  const float* b, Index b_k, Index k, const char* prefetch,
                                  Index prefetch_step) noexcept {
  for (Index l = 0; l < k; ++l) {
    __builtin_prefetch(prefetch, 0, 2);
    prefetch += prefetch_step;
    const Floats b0 = load(b), b1 = load(b + kLanes);
    GRAFT_UNROLL
    for (int i = 0; i < R; ++i) {
      const float v = a[i * a_row];
      c[i][0] = fma(v, b0, c[i][0]);
      c[i][1] = fma(v, b1, c[i][1]);
    }
    a += a_k;
    b += b_k;
  }
}

/// The same for rows of A without gaps and a panel: four steps at a time, rows by threes from
/// pointers of their own. Some processors share the ports of their multiply-adds with integer
/// additions and moves, so that one address more a step costs some percent.
template <int R>
GRAFT_SIMD_INLINE void panel_steps(Floats (&c)[R][2], const float* a, Index a_row, const float* b,
                                   Index k, const char* prefetch, Index prefetch_step) noexcept {
  constexpr int kSteps = 4, kGroups = (R + 2) / 3;
  const float* rows[kGroups];
  GRAFT_UNROLL
  for (int g = 0; g < kGroups; ++g) {
    rows[g] = a + 3 * g * a_row;
    GRAFT_OPAQUE(rows[g]);
  }
  Index l = 0;
  for (; l + kSteps <= k; l += kSteps) {
    GRAFT_UNROLL
    for (int s = 0; s < kSteps; ++s) {
      __builtin_prefetch(prefetch, 0, 2);
      prefetch += prefetch_step;
      const Floats b0 = load(b + s * kPanel), b1 = load(b + s * kPanel + kLanes);
      GRAFT_UNROLL
      for (int i = 0; i < R; ++i) {
        const float v = rows[i / 3][i % 3 * a_row + s];
        c[i][0] = fma(v, b0, c[i][0]);
        c[i][1] = fma(v, b1, c[i][1]);
      }
    }
    GRAFT_UNROLL
    for (int g = 0; g < kGroups; ++g) rows[g] += kSteps;
    b += kSteps * kPanel;
  }
  tile_steps<R>(c, rows[0], a_row, 1, b, kPanel, k - l, prefetch, prefetch_step);
}

template <int R>
GRAFT_SIMD_INLINE void tile_store(Floats (&c)[R][2], const Tile& t) noexcept {
  if (t.alpha != 1.0f) {
    GRAFT_UNROLL
    for (int i = 0; i < R; ++i) {
      c[i][0] *= t.alpha;
      c[i][1] *= t.alpha;
    }
  }
  if (t.cols == kTileCols) {
    if (t.bias != nullptr) {
      const Floats bias0 = load(t.bias), bias1 = load(t.bias + kLanes);
      GRAFT_UNROLL
      for (int i = 0; i < R; ++i) {
        c[i][0] += bias0;
        c[i][1] += bias1;
      }
    }
    if (t.beta == 0.0f) {
      GRAFT_UNROLL
      for (int i = 0; i < R; ++i) {
        store(t.c + i * t.ldc, c[i][0]);
        store(t.c + i * t.ldc + kLanes, c[i][1]);
      }
    } else {
      GRAFT_UNROLL
      for (int i = 0; i < R; ++i) {
        float* row = t.c + i * t.ldc;
        store(row, fma(t.beta, load(row), c[i][0]));
        store(row + kLanes, fma(t.beta, load(row + kLanes), c[i][1]));
      }
    }
    return;
  }
  float rows[R][kTileCols];
  GRAFT_UNROLL
  for (int i = 0; i < R; ++i) {
    store(rows[i], c[i][0]);
    store(rows[i] + kLanes, c[i][1]);
  }
  for (int i = 0; i < R; ++i) {
    float* row = t.c + i * t.ldc;
    for (Index j = 0; j < t.cols; ++j) {
      float v = rows[i][j];
      if (t.bias != nullptr) v += t.bias[j];
      row[j] = t.beta == 0.0f ? v : v + t.beta * row[j];
    }
  }
}

template <int R>
GRAFT_SIMD_FN GRAFT_NOINLINE void tile(const Tile& t) noexcept {
  constexpr bool kLarge = R >= 10;
  if constexpr (kLarge) {
    GRAFT_UNROLL
    for (int i = 0; i < R; ++i) {
      __builtin_prefetch(t.c + i * t.ldc, 1, 3);
      __builtin_prefetch(t.c + i * t.ldc + kTileCols - 1, 1, 3);
    }
  }
  // With few rows, several sums per element hide the latency of an addition.
  constexpr int kSums = R == 1 ? 4 : R <= 3 ? 2 : 1;
  Floats c[R][2] = {};
  if constexpr (kSums == 1) {
    // Of smaller tiles there are few, and each costs time to compile.
    bool done = false;
    if constexpr (kLarge) {
      done = t.a_k == 1 && t.b_k == kPanel;
      if (done) panel_steps<R>(c, t.a, t.a_row, t.b, t.k, t.prefetch, t.prefetch_step);
    }
    if (!done) tile_steps<R>(c, t.a, t.a_row, t.a_k, t.b, t.b_k, t.k, t.prefetch, t.prefetch_step);
  } else {
    Floats sums[kSums][R][2] = {};
    const float* a = t.a;
    const float* b = t.b;
    Index l = 0;
    for (; l + kSums <= t.k; l += kSums) {
      GRAFT_UNROLL
      for (int s = 0; s < kSums; ++s) {
        __builtin_prefetch(b + 8 * kPanel, 0, 3);
        const Floats b0 = load(b), b1 = load(b + kLanes);
        GRAFT_UNROLL
        for (int i = 0; i < R; ++i) {
          const float v = a[i * t.a_row];
          sums[s][i][0] = fma(v, b0, sums[s][i][0]);
          sums[s][i][1] = fma(v, b1, sums[s][i][1]);
        }
        a += t.a_k;
        b += t.b_k;
      }
    }
    GRAFT_UNROLL
    for (int i = 0; i < R; ++i) {
      c[i][0] = sums[0][i][0];
      c[i][1] = sums[0][i][1];
      GRAFT_UNROLL
      for (int s = 1; s < kSums; ++s) {
        c[i][0] += sums[s][i][0];
        c[i][1] += sums[s][i][1];
      }
    }
    tile_steps<R>(c, a, t.a_row, t.a_k, b, t.b_k, t.k - l, reinterpret_cast<const char*>(b), 0);
  }
  if (t.rank > 0)
    tile_steps<R>(c, t.h, t.ldh, 1, t.p, t.ldp, t.rank, reinterpret_cast<const char*>(t.p), 0);
  tile_store<R>(c, t);
}

/// Rows of the next tile when `left` rows are to be covered by tiles of at most `limit`, all about
/// the same.
inline int next_tile_rows(Index left, int limit) noexcept {
  const Index tiles = (left + limit - 1) / limit;
  int rows = static_cast<int>((left + tiles - 1) / tiles);
  if (rows <= 8 || rows % 2 == 0) return rows;
  return tiles > 1 ? rows + 1 : (rows + 1) / 2;  // there are no tiles of 9, 11 and 13 rows
}

GRAFT_SIMD_FN inline void run_tile(int rows, const Tile& t) noexcept {
  switch (rows) {
    case 1:
      return tile<1>(t);
    case 2:
      return tile<2>(t);
    case 3:
      return tile<3>(t);
    case 4:
      return tile<4>(t);
    case 5:
      return tile<5>(t);
    case 6:
      return tile<6>(t);
#if GRAFT_SIMD_BYTES == 64
    case 7:
      return tile<7>(t);
    case 8:
      return tile<8>(t);
    case 10:
      return tile<10>(t);
    case 12:
      return tile<12>(t);
    case 14:
      return tile<14>(t);
#endif
    default:
      return;
  }
}

// ---------------------------------------------------------------------------------------------------------
// Panels.

/// In place: v[i] lane j ↔ v[j] lane i.
GRAFT_SIMD_INLINE void transpose(Floats (&v)[kLanes]) noexcept {
#if GRAFT_SIMD_BYTES == 64
#define GRAFT_LANES(a, b, i, j)                                                                 \
  __builtin_shufflevector(a, b, 4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3, 4 * j, 4 * j + 1,       \
                          4 * j + 2, 4 * j + 3, 4 * i + 16, 4 * i + 17, 4 * i + 18, 4 * i + 19, \
                          4 * j + 16, 4 * j + 17, 4 * j + 18, 4 * j + 19)
#endif
  [[maybe_unused]] Floats t[kLanes];
  GRAFT_UNROLL
  for (int i = 0; i < kLanes; i += 4) transpose_quads(v + i);
#if GRAFT_SIMD_BYTES == 32
  GRAFT_UNROLL
  for (int i = 0; i < 4; ++i) {
    t[i] = __builtin_shufflevector(v[i], v[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    t[i + 4] = __builtin_shufflevector(v[i], v[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
  GRAFT_UNROLL
  for (int i = 0; i < 8; ++i) v[i] = t[i];
#elif GRAFT_SIMD_BYTES == 64
  GRAFT_UNROLL
  for (int i = 0; i < 4; ++i) {
    t[i] = GRAFT_LANES(v[i], v[i + 4], 0, 2);
    t[i + 4] = GRAFT_LANES(v[i], v[i + 4], 1, 3);
    t[i + 8] = GRAFT_LANES(v[i + 8], v[i + 12], 0, 2);
    t[i + 12] = GRAFT_LANES(v[i + 8], v[i + 12], 1, 3);
  }
  GRAFT_UNROLL
  for (int i = 0; i < 4; ++i) {
    v[i] = GRAFT_LANES(t[i], t[i + 8], 0, 2);
    v[i + 8] = GRAFT_LANES(t[i], t[i + 8], 1, 3);
    v[i + 4] = GRAFT_LANES(t[i + 4], t[i + 12], 0, 2);
    v[i + 12] = GRAFT_LANES(t[i + 4], t[i + 12], 1, 3);
  }
#undef GRAFT_LANES
#endif
}

/// to[l · kPanel + j] = from[j · stride + l] for j < rows (≤ kPanel) and l < k; columns from `rows`
/// on are zero.
GRAFT_SIMD_FN inline void transpose_to_panel(const float* from, Index stride, Index rows, Index k,
                                             float* to) noexcept {
  for (Index j = 0; j < kPanel; j += kLanes) {
    const Index valid = std::clamp<Index>(rows - j, 0, kLanes);
    const float* block = from + j * stride;
    Index l = 0;
    if (valid == kLanes) {
      for (; l + kLanes <= k; l += kLanes) {
        Floats v[kLanes];
        GRAFT_UNROLL
        for (int i = 0; i < kLanes; ++i) v[i] = load(block + i * stride + l);
        transpose(v);
        GRAFT_UNROLL
        for (int i = 0; i < kLanes; ++i) store(to + (l + i) * kPanel + j, v[i]);
      }
    }
    for (; l < k; ++l)
      for (Index i = 0; i < kLanes; ++i)
        to[l * kPanel + j + i] = i < valid ? block[i * stride + l] : 0.0f;
  }
}

/// c[j · ldc + i] = alpha · from[i · stride + j] + beta · c[j · ldc + i] for i < rows and j < cols.
GRAFT_SIMD_FN inline void store_transposed(const float* from, Index stride, Index rows, Index cols,
                                           float alpha, float beta, float* c, Index ldc) noexcept {
  for (Index i = 0; i < rows; i += kLanes) {
    const Index here = std::min<Index>(kLanes, rows - i);
    for (Index j = 0; j < cols; j += kLanes) {
      const Index width = std::min<Index>(kLanes, cols - j);
      Floats v[kLanes] = {};
      if (width == kLanes) {
        for (Index r = 0; r < here; ++r) v[r] = load(from + (i + r) * stride + j);
      } else {
        for (Index r = 0; r < here; ++r) v[r] = load_partial(from + (i + r) * stride + j, width);
      }
      transpose(v);
      for (Index r = 0; r < width; ++r) {
        float* to = c + (j + r) * ldc + i;
        v[r] *= alpha;
        if (here == kLanes) {
          if (beta != 0.0f) v[r] = fma(beta, load(to), v[r]);
          store(to, v[r]);
        } else {
          if (beta != 0.0f) v[r] = fma(beta, load_partial(to, here), v[r]);
          store_partial(to, v[r], here);
        }
      }
    }
  }
}

/// Cuts a row of `cols` values into panels that lie `panel_size` floats apart; pads the last with
/// zeros.
GRAFT_SIMD_FN inline void copy_row_to_panels(const float* from, Index cols, float* to,
                                             Index panel_size) noexcept {
  Index j = 0;
  for (; j + kPanel <= cols; j += kPanel, to += panel_size) {
    GRAFT_UNROLL
    for (int i = 0; i < kPanel; i += kLanes) store(to + i, load(from + j + i));
  }
  if (j < cols)
    for (Index i = 0; i < kPanel; ++i) to[i] = j + i < cols ? from[j + i] : 0.0f;
}

/// to[l · kPanel + j] = B(first_k + l, first_n + j) from panels of B transposed; first_k is a
/// multiple of kPanel.
GRAFT_SIMD_FN inline void transpose_packed(const RightOperand& b, Index first_n, Index n,
                                           Index first_k, Index k, float* to) noexcept {
  for (Index done = 0; done < n;) {  // these rows may lie in two blocks of depth
    const Index row = first_n + done;
    const Index block = row / b.panel_depth * b.panel_depth;
    const Index depth = std::min(b.panel_depth, b.panel_k - block);
    const Index rows = std::min(n - done, block + depth - row);
    const float* from = b.data + block * graft::kernels::detail::round_up(b.panel_n, kPanel) +
                        first_k * depth + (row - block) * kPanel;
    if (done == 0 && rows == n) return transpose_to_panel(from, kPanel, n, k, to);
    for (Index l = 0; l < k; ++l)
      for (Index j = 0; j < rows; ++j) to[l * kPanel + done + j] = from[j * kPanel + l];
    done += rows;
  }
  for (Index l = 0; l < k; ++l)
    for (Index j = n; j < kPanel; ++j) to[l * kPanel + j] = 0.0f;
}

/// Pairs of rows of a panel of bf16 values, [⌈rows / 2⌉][32], as f32 [rows][32]. A pair has its
/// first value in the low half of the word.
GRAFT_SIMD_FN inline void expand_words(const std::uint32_t* from, Index rows, float* to) noexcept {
  for (Index r = 0; r < rows; ++r, to += kPanel) {
    const auto* words = reinterpret_cast<const std::int32_t*>(from + r / 2 * kPanel);
    GRAFT_UNROLL
    for (int j = 0; j < kPanel; j += kLanes) {
      const Ints pair = load(words + j);
      store(to + j, floats_of_bits(r % 2 == 0 ? pair << 16
                                              : pair & static_cast<std::int32_t>(0xffff0000u)));
    }
  }
}

/// Fetches into the second-level cache what will be decoded next: values first … first + count of
/// the row `ahead` rows behind this one. Pieces of rows, as tasks decode them, are too short for
/// the processor to see where they lead.
GRAFT_SIMD_INLINE void prefetch_row(const RightOperand& b, Index row, Index ahead, Index first,
                                    Index count) noexcept {
  const char* const p = static_cast<const char*>(b.blocks) + (row + ahead) * b.row_bytes;
  const Index end = (first + count) * b.row_bytes / b.row_values;
  for (Index i = first * b.row_bytes / b.row_values; i < end; i += 64)
    __builtin_prefetch(p + i, 0, 2);
}
/// Rows between one that is decoded along n and one that is fetched.
inline constexpr Index kRowsAhead = 8;

/// Panels of B for rows first_k … first_k + k and columns first_n … first_n + n; a panel takes k ·
/// kPanel floats. With `fetch`, stored rows behind those that are decoded are fetched.
GRAFT_SIMD_FN inline void fill_panels(const RightOperand& b, Index first_k, Index k, Index first_n,
                                      Index n, float* to, float* decoded, bool fetch) noexcept {
  constexpr Index kStep = graft::kernels::detail::kDecodeStep;
  const char* const blocks = static_cast<const char*>(b.blocks);
  switch (b.form) {
    case RightOperand::Form::panels:
    case RightOperand::Form::words:
      // Packed blocks begin at multiples of kDecodeStep or hold all of k.
      for (Index l = 0; l < k; l += kStep) {
        const Index block = (first_k + l) / b.panel_depth * b.panel_depth;
        const Index depth = std::min(b.panel_depth, b.panel_k - block);
        const Index padded_n = graft::kernels::detail::round_up(b.panel_n, kPanel);
        const Index row = first_k + l - block;
        const Index count = std::min(kStep, k - l);
        for (Index j = 0; j < n; j += kPanel) {
          float* target = to + j * k + l * kPanel;
          if (b.form == RightOperand::Form::panels) {
            const float* from = b.data + block * padded_n + (first_n + j) * depth + row * kPanel;
            std::copy_n(from, count * kPanel, target);
          } else {
            expand_words(b.words + block / 2 * padded_n + (first_n + j) * ((depth + 1) / 2) +
                             row / 2 * kPanel,
                         count, target);
          }
        }
      }
      return;
    case RightOperand::Form::k_rows:
      if (b.decode_columns != nullptr && first_n % kPanel == 0 && n % kPanel == 0) {
        for (Index l = 0; l < k; l += kPanel) {
          const Index rows = std::min(kPanel, k - l);
          for (Index r = 0; fetch && r < rows; ++r)
            prefetch_row(b, first_k + l + r, kPanel, first_n, n);
          for (Index j = 0; j < n; j += kPanel)
            b.decode_columns(blocks + (first_k + l) * b.row_bytes, b.row_bytes, first_n + j, rows,
                             to + j * k + l * kPanel);
        }
        return;
      }
      for (Index l = 0; l < k; ++l) {
        const float* values = decoded;
        if (b.decode != nullptr) {
          if (fetch) prefetch_row(b, first_k + l, kRowsAhead, first_n, n);
          b.decode(blocks + (first_k + l) * b.row_bytes, first_n, n, decoded);
        } else {
          values = b.data + (first_k + l) * b.stride + first_n;
        }
        copy_row_to_panels(values, n, to + l * kPanel, k * kPanel);
      }
      return;
    case RightOperand::Form::n_rows:
      for (Index j = 0; j < n; j += kPanel, to += k * kPanel) {
        const Index rows = std::min(kPanel, n - j);
        if (b.decode == nullptr) {
          transpose_to_panel(b.data + (first_n + j) * b.stride + first_k, b.stride, rows, k, to);
          continue;
        }
        constexpr Index stride = graft::kernels::detail::kDecodeStride;
        const bool whole = b.decode_panel != nullptr && rows == kPanel && k % kPanel == 0;
        for (Index l = 0; l < k; l += kStep) {
          const Index count = std::min(kStep, k - l);
          for (Index r = 0; r < rows; ++r) {
            const Index row = first_n + j + r;
            if (fetch) prefetch_row(b, row, kPanel, first_k + l, count);
            if (!whole)
              b.decode(blocks + row * b.row_bytes, first_k + l, count, decoded + r * stride);
          }
          if (whole)
            b.decode_panel(blocks + (first_n + j) * b.row_bytes, b.row_bytes, first_k + l, count,
                           to + l * kPanel);
          else
            transpose_to_panel(decoded, stride, rows, count, to + l * kPanel);
        }
      }
      return;
    case RightOperand::Form::transposed_panels:
      for (Index j = 0; j < n; j += kPanel, to += k * kPanel)
        for (Index l = 0; l < k; l += kPanel)
          transpose_packed(b, first_n + j, std::min(kPanel, n - j), first_k + l,
                           std::min(kPanel, k - l), to + l * kPanel);
      return;
    case RightOperand::Form::transposed_words:
      for (Index j = 0; j < n; j += kPanel, to += k * kPanel) {
        const Index rows = std::min(kPanel, n - j);
        const Index block = (first_n + j) / b.panel_depth * b.panel_depth;
        const Index depth = (std::min(b.panel_depth, b.panel_k - block) + 1) / 2;
        const std::uint32_t* from =
            b.words + block / 2 * graft::kernels::detail::round_up(b.panel_n, kPanel) +
            first_k * depth + (first_n + j - block) / 2 * kPanel;
        for (Index l = 0; l < k; l += kPanel) {
          expand_words(from + l * depth, rows, decoded);
          transpose_to_panel(decoded, kPanel, rows, std::min(kPanel, k - l), to + l * kPanel);
        }
      }
      return;
  }
}

/// to = from, rounded to bf16; they may be the same.
GRAFT_SIMD_FN inline void round_values(const float* from, Index count, float* to) noexcept {
  Index i = 0;
  for (; i + kLanes <= count; i += kLanes)
    store(to + i, floats_of_bits(round_to_bf16(load(from + i))));
  if (i < count)
    store_partial(to + i, floats_of_bits(round_to_bf16(load_partial(from + i, count - i))),
                  count - i);
}

/// An f32 panel [k][32] as words [⌈k / 2⌉][32].
GRAFT_SIMD_FN inline void round_panel(const float* panel, Index k, std::uint32_t* words) noexcept {
  for (Index l = 0; l < k; l += 2, panel += 2 * kPanel, words += kPanel) {
    GRAFT_UNROLL
    for (int j = 0; j < kPanel; j += kLanes) {
      const Ints first = (round_to_bf16(load(panel + j)) >> 16) & 0xffff;
      const Ints second = l + 1 < k ? round_to_bf16(load(panel + kPanel + j)) : Ints{};
      store(reinterpret_cast<std::int32_t*>(words) + j, first | second);
    }
  }
}

/// Panels of B as words, through `floats`, which holds one step of all panels; see fill_panels.
GRAFT_SIMD_FN inline void fill_word_panels(const RightOperand& b, Index first_k, Index k,
                                           Index first_n, Index n, std::uint32_t* words,
                                           float* floats, float* decoded) noexcept {
  constexpr Index kStep = graft::kernels::detail::kDecodeStep;
  const Index depth = (k + 1) / 2;
  for (Index l = 0; l < k; l += kStep) {
    const Index count = std::min(kStep, k - l);
    fill_panels(b, first_k + l, count, first_n, n, floats, decoded, true);
    for (Index j = 0; j < n; j += kPanel)
      round_panel(floats + j * count, count, words + j * depth + l / 2 * kPanel);
  }
}

// ---------------------------------------------------------------------------------------------------------
// Operands of products by tiles (see tiles.hpp): words of bf16 pairs, of the high parts of the
// values and, in split products, of the low ones.

/// v − the nearest bf16; NaN where that is not finite.
GRAFT_SIMD_INLINE Floats low_part(Floats v) noexcept {
  return v - floats_of_bits(round_to_bf16(v));
}

/// Up to 16 rows of x (k wide) as the tiles of a row of tiles, [⌈k / 32⌉][16][16] words, zero
/// beside the rows; with low_offset > 0 the low parts follow so many words behind.
GRAFT_SIMD_FN inline void pack_tile_rows(const float* x, Index ldx, Index rows, Index k,
                                         std::uint32_t* words, Index low_offset) noexcept {
  using Halves = Vec<std::uint16_t, kLanes>;
  for (Index i = 0; i < 16; ++i, words += 16) {
    std::uint32_t* tile = words;
    for (Index l = 0; l < k; l += 32, tile += 256) {
      for (Index half = 0; half < 32; half += kLanes) {
        const Index left = i < rows ? std::clamp<Index>(k - l - half, 0, kLanes) : 0;
        const float* from = x + i * ldx + l + half;
        const Floats v = left == kLanes ? load(from)
                         : left > 0     ? load_partial(from, left)
                                        : Floats{};
        auto halves = __builtin_convertvector(round_to_bf16(v) >> 16, Halves);
        __builtin_memcpy(tile + half / 2, &halves, sizeof halves);
        if (low_offset > 0) {
          halves = __builtin_convertvector(round_to_bf16(low_part(v)) >> 16, Halves);
          __builtin_memcpy(tile + low_offset + half / 2, &halves, sizeof halves);
        }
      }
    }
  }
}

/// fill_word_panels of the high parts of B, and low_offset words behind of the low ones.
GRAFT_SIMD_FN inline void fill_split_panels(const RightOperand& b, Index first_k, Index k,
                                            Index first_n, Index n, std::uint32_t* words,
                                            Index low_offset, float* floats,
                                            float* decoded) noexcept {
  constexpr Index kStep = graft::kernels::detail::kDecodeStep;
  const Index depth = (k + 1) / 2;
  for (Index l = 0; l < k; l += kStep) {
    const Index count = std::min(kStep, k - l);
    fill_panels(b, first_k + l, count, first_n, n, floats, decoded, true);
    for (Index j = 0; j < n; j += kPanel) {
      float* const panel = floats + j * count;
      std::uint32_t* const to = words + j * depth + l / 2 * kPanel;
      round_panel(panel, count, to);
      for (Index i = 0; i < count * kPanel; i += kLanes)
        store(panel + i, low_part(load(panel + i)));
      round_panel(panel, count, to + low_offset);
    }
  }
}

/// Up to 16 rows of H (rank wide) as pack_tile_rows does for [low | high | high] parts of H;
/// `floats` holds rows × 3 rank values.
GRAFT_SIMD_FN inline void pack_term_rows(const float* h, Index ldh, Index rows, Index rank,
                                         float* floats, std::uint32_t* words) noexcept {
  for (Index i = 0; i < rows; ++i) {
    float* const row = floats + i * 3 * rank;
    for (Index r = 0; r < rank; r += kLanes) {
      const Index count = std::min<Index>(kLanes, rank - r);
      const Floats v = load_partial(h + i * ldh + r, count);
      const Floats high = floats_of_bits(round_to_bf16(v));
      store_partial(row + r, low_part(v), count);
      store_partial(row + rank + r, high, count);
      store_partial(row + 2 * rank + r, high, count);
    }
  }
  pack_tile_rows(floats, 3 * rank, rows, 3 * rank, words, 0);
}

/// `width` columns of P (rank high) as a panel of [high; high; low] parts of P, padded with zeros
/// to a multiple of 16 pairs, so that the product with the rows of pack_term_rows is H P to within
/// 2⁻¹⁵ of |H| |P|; `floats` holds 3 rank × 32 values.
GRAFT_SIMD_FN inline void fill_term_panel(const float* p, Index ldp, Index rank, Index width,
                                          float* floats, std::uint32_t* words) noexcept {
  for (Index r = 0; r < rank; ++r) {
    for (Index j = 0; j < kPanel; j += kLanes) {
      const Index count = std::clamp<Index>(width - j, 0, kLanes);
      const Floats v = count > 0 ? load_partial(p + r * ldp + j, count) : Floats{};
      const Floats high = floats_of_bits(round_to_bf16(v));
      store(floats + r * kPanel + j, high);
      store(floats + (rank + r) * kPanel + j, high);
      store(floats + (2 * rank + r) * kPanel + j, low_part(v));
    }
  }
  round_panel(floats, 3 * rank, words);
  const Index pairs = (3 * rank + 1) / 2;
  std::fill_n(words + pairs * kPanel, (pairs + 15) / 16 * 16 * kPanel - pairs * kPanel, 0u);
}

// ---------------------------------------------------------------------------------------------------------
// The loops around a tile: one task covers row_block × col_block elements of C, over all of k.

/// Lets tile number `slot` of `slots` fetch into the second-level cache its share of the stored
/// values that the next task decodes, those from column `col` on: a burst of loads from memory when
/// they are decoded would stand still for each of them.
GRAFT_SIMD_INLINE void fetch_ahead(const Product& q, Index col, Index k0, Index slot, Index slots,
                                   Tile& t) noexcept {
  const Index cols = std::min(q.col_block, q.n - col);
  if (cols <= 0) return;
  t.prefetch = static_cast<const char*>(q.b.blocks);
  if (q.b.form == RightOperand::Form::k_rows) {  // a line of each row
    if (64 * slot >= cols * q.b.row_bytes / q.b.row_values + 64) return;
    t.prefetch += k0 * q.b.row_bytes + col * q.b.row_bytes / q.b.row_values + 64 * slot;
    t.prefetch_step = q.b.row_bytes;
  } else if (k0 + t.k >= q.k) {  // whole rows
    const Index share = graft::kernels::detail::ceil_div(cols * q.b.row_bytes, slots);
    t.prefetch += col * q.b.row_bytes + slot * share;
    t.prefetch_step = graft::kernels::detail::ceil_div(share, t.k);
  }
}

GRAFT_SIMD_FN inline void run_product_task(const Product& q, Index task, float* scratch) noexcept {
  const Index row0 = task / q.col_blocks() * q.row_block;
  const Index col0 = task % q.col_blocks() * q.col_block;
  const Index rows = std::min(q.row_block, q.m - row0);
  const Index cols = std::min(q.col_block, q.n - col0);
  float* const panels = scratch + q.panel_offset;
  float* const low_rank = scratch + q.p_offset;
  float* const transposed = scratch + q.c_offset;
  const Index tail = cols % kPanel;
  // The part of P beside the last, incomplete panel, padded.
  if (q.rank > 0 && tail != 0) {
    for (Index r = 0; r < q.rank; ++r)
      for (Index j = 0; j < kPanel; ++j)
        low_rank[r * kPanel + j] = j < tail ? q.p[r * q.ldp + col0 + cols - tail + j] : 0.0f;
  }
  // 4 KiB apart, all rows of A fall into the same set of the first-level cache: no more rows a tile
  // then than that holds.
  const int limit = q.a_row % 1024 == 0
                        ? std::min(kMaxTileRows, graft::kernels::detail::rows_in_cache_set())
                        : kMaxTileRows;
  const bool ready = q.b.form == RightOperand::Form::panels && !q.round;
  const bool decodes = q.b.blocks != nullptr && !ready;
  const Index tiles = graft::kernels::detail::ceil_div(std::min(q.inner_rows, rows), limit);
  const Index padded_n = graft::kernels::detail::round_up(q.n, kPanel);

  Tile t{};
  t.a_row = q.a_row;
  t.a_k = q.a_k;
  t.ldh = q.ldh;
  for (Index k0 = 0; k0 == 0 || k0 < q.k; k0 += q.depth) {
    const Index depth = std::min(q.depth, q.k - k0);
    const bool last = k0 + depth >= q.k;
    if (!ready) {
      if (!q.in_place) {
        fill_panels(q.b, k0, depth, col0, cols, panels, scratch + q.decode_offset, false);
        if (q.round)
          round_values(panels, depth * graft::kernels::detail::round_up(cols, kPanel), panels);
      } else if (tail != 0) {
        fill_panels(q.b, k0, depth, col0 + cols - tail, tail, panels, nullptr, false);
      }
    }
    t.k = depth;
    t.rank = last ? q.rank : 0;
    t.alpha = q.transpose_c ? 1.0f : q.alpha;
    t.beta = k0 > 0 ? 1.0f : q.transpose_c ? 0.0f : q.beta;
    for (Index r0 = 0; r0 < rows; r0 += q.inner_rows) {
      const Index inner = std::min(q.inner_rows, rows - r0);
      for (Index j = 0; j < cols; j += kPanel) {
        const Index width = std::min(kPanel, cols - j);
        const float* panel;
        Index stride = kPanel;
        const float* next;
        if (ready) {
          panel = q.b.data + k0 * padded_n + (col0 + j) * depth;
          next = panel + depth * kPanel;
        } else if (q.in_place && width == kPanel) {
          panel = q.b.data + k0 * q.b.stride + col0 + j;
          stride = q.b.stride;
          next = j + kPanel < cols ? panel + kPanel : last ? panel : panel + depth * stride - j;
        } else {
          panel = q.in_place ? panels : panels + j * depth;
          next = panel;
        }
        t.b_k = stride;
        int number = 0;
        for (Index i = 0; i < inner; ++number) {
          const int tile_rows = next_tile_rows(inner - i, limit);
          const Index row = row0 + r0 + i;
          t.a = q.a + row * q.a_row + k0 * q.a_k;
          t.h = q.h + row * q.ldh;
          for (Index sub = 0; sub < width; sub += kTileCols) {
            t.prefetch = reinterpret_cast<const char*>(panel);
            t.prefetch_step = 0;
            if (decodes) {
              if (r0 == 0 && sub == 0)
                fetch_ahead(q, col0 + q.col_block, k0, j / kPanel * tiles + number,
                            tiles * graft::kernels::detail::ceil_div(cols, kPanel), t);
            } else if (r0 == 0 && sub == 0 && number < 2) {
              // The first two tiles fetch the panel after this one into the second-level cache.
              if (ready) {
                t.prefetch = reinterpret_cast<const char*>(next + number * depth * kPanel / 2);
                t.prefetch_step = 4 * (tile_rows == inner ? kPanel : kPanel / 2);
              } else if (stride != kPanel) {
                t.prefetch = reinterpret_cast<const char*>(next + number * kPanel / 2);
                t.prefetch_step = 4 * stride;
              }
            }
            t.b = panel + sub;
            t.cols = std::min<Index>(kTileCols, width - sub);
            const Index col = col0 + j + sub;
            t.bias = last && q.bias != nullptr ? q.bias + col : nullptr;
            if (t.rank > 0) {
              t.p = width == kPanel ? q.p + col : low_rank + sub;
              t.ldp = width == kPanel ? q.ldp : kPanel;
            }
            if (q.transpose_c) {
              t.c = transposed + (r0 + i) * q.col_block + j + sub;
              t.ldc = q.col_block;
            } else {
              t.c = q.c + row * q.ldc + col;
              t.ldc = q.ldc;
            }
            run_tile(tile_rows, t);
          }
          i += tile_rows;
        }
      }
    }
  }
  if (q.transpose_c)
    store_transposed(transposed, q.col_block, rows, cols, q.alpha, q.beta,
                     q.c + col0 * q.ldc + row0, q.ldc);
}

}  // namespace graft::inline v0_1::kernels::GRAFT_SIMD_NS
