// Products whose rows both run along k, as dot products; for few rows or few columns. No include
// guard.
namespace graft::inline v0_1::kernels::GRAFT_SIMD_NS {

using graft::kernels::detail::Product;

#if GRAFT_SIMD_BYTES == 64
inline constexpr int kMaxDotRows = 6;
#else
inline constexpr int kMaxDotRows = 3;
#endif
inline constexpr int kDotCols = 4;
using Quad = VecOf<float, 4>::unaligned;

/// The sums of the lanes of four vectors.
GRAFT_SIMD_INLINE Vec<float, 4> add_lanes(Vec<float, 4> a, Vec<float, 4> b, Vec<float, 4> c,
                                          Vec<float, 4> d) noexcept {
  const Vec<float, 4> ab =
      __builtin_shufflevector(a, b, 0, 4, 1, 5) + __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const Vec<float, 4> cd =
      __builtin_shufflevector(c, d, 0, 4, 1, 5) + __builtin_shufflevector(c, d, 2, 6, 3, 7);
  return __builtin_shufflevector(ab, cd, 0, 1, 4, 5) + __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
}
#if GRAFT_SIMD_BYTES >= 32
GRAFT_SIMD_INLINE Vec<float, 4> add_halves(Vec<float, 8> v) noexcept {
  return __builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7);
}
#if GRAFT_SIMD_BYTES == 64
GRAFT_SIMD_INLINE Vec<float, 4> add_halves(Vec<float, 16> v) noexcept {
  return add_halves(__builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
                    __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15));
}
#endif
GRAFT_SIMD_INLINE Vec<float, 4> add_lanes(Floats a, Floats b, Floats c, Floats d) noexcept {
  return add_lanes(add_halves(a), add_halves(b), add_halves(c), add_halves(d));
}
#endif

/// out[i · 4 + j] = Σ_l a[i · lda + l] b_j[l].
template <int R>
GRAFT_SIMD_FN GRAFT_NOINLINE void dot(const float* a, Index lda, const float* const* rows, Index k,
                                      float* out) noexcept {
  constexpr int kSums = R == 1 ? 2 : 1;  // more sums hide the latency of an addition
  const float *b0 = rows[0], *b1 = rows[1], *b2 = rows[2], *b3 = rows[3];
  Floats sums[kSums][R][kDotCols] = {};
  Index l = 0;
  for (; l + kSums * kLanes <= k; l += kSums * kLanes) {
    GRAFT_UNROLL
    for (int s = 0; s < kSums; ++s) {
      const Floats v0 = load(b0 + l + s * kLanes), v1 = load(b1 + l + s * kLanes);
      const Floats v2 = load(b2 + l + s * kLanes), v3 = load(b3 + l + s * kLanes);
      GRAFT_UNROLL
      for (int i = 0; i < R; ++i) {
        const Floats x = load(a + i * lda + l + s * kLanes);
        sums[s][i][0] = fma(x, v0, sums[s][i][0]);
        sums[s][i][1] = fma(x, v1, sums[s][i][1]);
        sums[s][i][2] = fma(x, v2, sums[s][i][2]);
        sums[s][i][3] = fma(x, v3, sums[s][i][3]);
      }
    }
  }
  for (; l < k; l += kLanes) {
    const Index left = std::min<Index>(k - l, kLanes);
    const Floats v0 = load_partial(b0 + l, left), v1 = load_partial(b1 + l, left);
    const Floats v2 = load_partial(b2 + l, left), v3 = load_partial(b3 + l, left);
    GRAFT_UNROLL
    for (int i = 0; i < R; ++i) {
      const Floats x = load_partial(a + i * lda + l, left);
      sums[0][i][0] = fma(x, v0, sums[0][i][0]);
      sums[0][i][1] = fma(x, v1, sums[0][i][1]);
      sums[0][i][2] = fma(x, v2, sums[0][i][2]);
      sums[0][i][3] = fma(x, v3, sums[0][i][3]);
    }
  }
  GRAFT_UNROLL
  for (int i = 0; i < R; ++i) {
    if constexpr (kSums == 2) {
      GRAFT_UNROLL
      for (int j = 0; j < kDotCols; ++j) sums[0][i][j] += sums[1][i][j];
    }
    *reinterpret_cast<Quad*>(out + i * kDotCols) =
        add_lanes(sums[0][i][0], sums[0][i][1], sums[0][i][2], sums[0][i][3]);
  }
}

GRAFT_SIMD_FN inline void run_dot(int tile_rows, const float* a, Index lda,
                                  const float* const* rows, Index k, float* out) noexcept {
  switch (tile_rows) {
    case 1:
      return dot<1>(a, lda, rows, k, out);
    case 2:
      return dot<2>(a, lda, rows, k, out);
    case 3:
      return dot<3>(a, lda, rows, k, out);
#if GRAFT_SIMD_BYTES == 64
    case 4:
      return dot<4>(a, lda, rows, k, out);
    case 5:
      return dot<5>(a, lda, rows, k, out);
    case 6:
      return dot<6>(a, lda, rows, k, out);
#endif
    default:
      return;
  }
}

/// C += H P in rows × cols elements.
GRAFT_SIMD_FN inline void add_low_rank(const Product& q, Index row0, Index rows, Index col0,
                                       Index cols) noexcept {
  for (Index i = 0; i < (q.rank > 0 ? rows : 0); ++i) {
    float* c = q.c + (row0 + i) * q.ldc + col0;
    const float* h = q.h + (row0 + i) * q.ldh;
    for (Index j = 0; j < cols; j += kLanes) {
      const Index left = std::min<Index>(cols - j, kLanes);
      Floats v = load_partial(c + j, left);
      for (Index r = 0; r < q.rank; ++r)
        v = fma(h[r], load_partial(q.p + r * q.ldp + col0 + j, left), v);
      store_partial(c + j, v, left);
    }
  }
}

/// One task of the same with b.dot, or with b.dot_int8 where A is in 8 bits, all rows and alpha 1.
GRAFT_SIMD_FN inline void run_stored_dot_task(const Product& q, Index task,
                                              float* scratch) noexcept {
  const Index col0 = task * q.col_block;
  const Index cols = std::min(q.col_block, q.n - col0);
  const char* const rows = static_cast<const char*>(q.b.blocks) + col0 * q.b.row_bytes;
  if (q.codes == nullptr) {
    q.b.dot(rows, q.b.row_bytes, cols, q.k, q.a, q.m, q.a_row, scratch, q.col_block);
  } else {
    for (Index i = 0; i < q.m; ++i)
      q.b.dot_int8(rows, q.b.row_bytes, cols, q.k, q.codes + i * q.k,
                   q.pairs + i * (2 * q.k / kInt8Block), scratch + i * q.col_block);
  }
  for (Index i = 0; i < q.m; ++i) {
    float* c = q.c + i * q.ldc + col0;
    for (Index j = 0; j < cols; j += kLanes) {
      const Index left = std::min<Index>(cols - j, kLanes);
      Floats v = load_partial(scratch + i * q.col_block + j, left);
      if (q.bias != nullptr) v += load_partial(q.bias + col0 + j, left);
      if (q.beta != 0.0f) v = fma(q.beta, load_partial(c + j, left), v);
      store_partial(c + j, v, left);
    }
  }
  add_low_rank(q, 0, q.m, col0, cols);
}

/// One task of a product with b.form n_rows and a_k = 1.
GRAFT_SIMD_FN inline void run_dot_task(const Product& q, Index task, float* scratch) noexcept {
  const Index row0 = task / q.col_blocks() * q.row_block;
  const Index col0 = task % q.col_blocks() * q.col_block;
  const Index rows = std::min(q.row_block, q.m - row0);
  const Index cols = std::min(q.col_block, q.n - col0);
  const char* const blocks = static_cast<const char*>(q.b.blocks);
  float* const decoded = scratch + q.decode_offset;
  const Index decoded_stride = q.depth + 16;
  float out[kMaxDotRows * kDotCols];
  const float* b[kDotCols];
  for (Index k0 = 0; k0 == 0 || k0 < q.k; k0 += q.depth) {
    const Index depth = std::min(q.depth, q.k - k0);
    if (q.b.decode != nullptr && depth > 0) {
      for (Index j = 0; j < cols; ++j)
        q.b.decode(blocks + (col0 + j) * q.b.row_bytes, k0, depth, decoded + j * decoded_stride);
    }
    for (Index i = 0; i < rows;) {
      const Index left = rows - i;
      const Index tiles = (left + kMaxDotRows - 1) / kMaxDotRows;
      const int tile_rows = static_cast<int>((left + tiles - 1) / tiles);
      const float* a = q.a + (row0 + i) * q.a_row + k0;
      // The rows of the next tile come into the cache meanwhile, a part beside each group of
      // columns; long rows do so by themselves.
      const Index ahead = depth > 1024 ? 0 : std::min<Index>(tile_rows, left - tile_rows);
      const Index part = (depth * kDotCols / cols + 16) / 16 * 16;
      for (Index j = 0; j < cols; j += kDotCols) {
        const Index first = j / kDotCols * part, end = std::min(depth, first + part);
        for (Index r = 0; r < ahead; ++r)
          for (Index l = first; l < end; l += 16)
            __builtin_prefetch(a + (tile_rows + r) * q.a_row + l, 0, 2);
        const int width = static_cast<int>(std::min<Index>(kDotCols, cols - j));
        for (int s = 0; s < kDotCols; ++s) {
          const Index col = j + std::min(s, width - 1);  // beyond the last column: its row again
          b[s] = q.b.decode != nullptr ? decoded + col * decoded_stride
                                       : q.b.data + (col0 + col) * q.b.stride + k0;
        }
        run_dot(tile_rows, a, q.a_row, b, depth, out);
        if (width == kDotCols && (q.beta == 0.0f || k0 > 0)) {
          for (int r = 0; r < tile_rows; ++r) {
            auto* c = reinterpret_cast<Quad*>(q.c + (row0 + i + r) * q.ldc + col0 + j);
            Vec<float, 4> v = *reinterpret_cast<const Quad*>(out + r * kDotCols) * q.alpha;
            if (k0 > 0) {
              v += *c;
            } else if (q.bias != nullptr) {
              v += *reinterpret_cast<const Quad*>(q.bias + col0 + j);
            }
            *c = v;
          }
          continue;
        }
        for (int r = 0; r < tile_rows; ++r) {
          float* c = q.c + (row0 + i + r) * q.ldc + col0 + j;
          for (int s = 0; s < width; ++s) {
            float v = q.alpha * out[r * kDotCols + s];
            if (k0 > 0) {
              v += c[s];
            } else {
              if (q.bias != nullptr) v += q.bias[col0 + j + s];
              if (q.beta != 0.0f) v += q.beta * c[s];
            }
            c[s] = v;
          }
        }
      }
      i += tile_rows;
    }
  }
  add_low_rank(q, row0, rows, col0, cols);
}

}  // namespace graft::inline v0_1::kernels::GRAFT_SIMD_NS
