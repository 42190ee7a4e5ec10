// Attention over blocks for one instruction set, on the register tiles of the products. No include
// guard.
//
// Scores are kept transposed: a row of a block is a key, its lanes are columns, that is queries of
// the heads that share a key/value head. K and V are then read where they lie, and the maximum, the
// sum and the masks of a query need no operation across lanes.
namespace graft::inline v0_1::kernels::GRAFT_SIMD_NS {

using graft::kernels::detail::AttentionColumns;
using graft::kernels::detail::AttentionPlan;
using graft::kernels::detail::kAttentionColumns;
using graft::kernels::detail::kAttentionFewAhead;
using graft::kernels::detail::kAttentionFewColumns;
using graft::kernels::detail::kAttentionFewKeys;
using graft::kernels::detail::kAttentionKeys;
using graft::kernels::detail::round_up;

inline constexpr float kLog2E = 1.44269504f;
inline constexpr float kLn2 = 0.693147181f;

/// C = A B + beta · C, A(i, l) = a[i · a_row + l · a_k]; rows of B can be read up to a multiple of
/// kTileCols.
GRAFT_SIMD_FN inline void block_product(Index m, Index n, Index k, const float* a, Index a_row,
                                        Index a_k, const float* b, Index ldb, float beta, float* c,
                                        Index ldc) noexcept {
  Tile t{};
  t.a_row = a_row;
  t.a_k = a_k;
  t.b_k = ldb;
  t.k = k;
  t.ldc = ldc;
  t.alpha = 1.0f;
  t.beta = beta;
  for (Index i = 0; i < m;) {
    const int rows = next_tile_rows(m - i, kMaxTileRows);
    t.a = a + i * a_row;
    for (Index j = 0; j < n; j += kTileCols) {
      t.b = b + j;
      t.prefetch = reinterpret_cast<const char*>(t.b);
      t.c = c + i * ldc + j;
      t.cols = std::min<Index>(kTileCols, n - j);
      run_tile(rows, t);
    }
    i += rows;
  }
}

/// Products of blocks as they lie. A left operand A(i, l) comes from its rows a[i · lda + l] or its
/// columns a[l · lda + i]; a right one B (k × n) is b[l · ldb + j].
class FloatProducts {
 public:
  static constexpr bool kCopies = false;  // of its operands
  struct Left {
    const float* data;
    Index row, k;
  };
  struct Right {
    const float* data;
    Index stride;
  };

  explicit FloatProducts(float*) noexcept {}
  static Left rows(const float* a, Index lda, Index, Index) noexcept { return {a, lda, 1}; }
  static Left columns(const float* a, Index lda, Index, Index) noexcept { return {a, 1, lda}; }
  static Right right(const float* b, Index ldb, Index, Index) noexcept { return {b, ldb}; }
  /// C = A B + beta · C
  GRAFT_SIMD_FN static void product(Index m, Index n, Index k, Left a, Right b, float beta,
                                    float* c, Index ldc) noexcept {
    block_product(m, n, k, a.data, a.row, a.k, b.data, b.stride, beta, c, ldc);
  }
};

/// to[l · kPanel + c] = factor · rows[c][l] for l < n; columns from `count` on are zero.
GRAFT_SIMD_FN inline void transpose_in(const float* const* rows, Index count, Index n, float factor,
                                       float* to) noexcept {
  for (Index c = 0; c < kPanel; c += kLanes) {
    for (Index l = 0; l < n; l += kLanes) {
      const Index left = std::min<Index>(kLanes, n - l);
      Floats v[kLanes] = {};
      if (left == kLanes && c + kLanes <= count) {
        GRAFT_UNROLL
        for (int i = 0; i < kLanes; ++i) v[i] = load(rows[c + i] + l);
      } else {
        for (int i = 0; i < kLanes && c + i < count; ++i)
          v[i] = load_partial(rows[c + i] + l, left);
      }
      transpose(v);
      for (Index i = 0; i < left; ++i) store(to + (l + i) * kPanel + c, v[i] * factor);
    }
  }
}

/// rows[c][l] = factor[c] · from[l · kPanel + c], or += with kAdd, for l < n and c < count.
template <bool kAdd>
GRAFT_SIMD_FN inline void transpose_out(const float* from, const float* factor, Index n,
                                        float* const* rows, Index count) noexcept {
  for (Index c = 0; c < count; c += kLanes) {
    const Index columns = std::min<Index>(kLanes, count - c);
    const Floats f = load(factor + c);
    for (Index l = 0; l < n; l += kLanes) {
      const Index left = std::min<Index>(kLanes, n - l);
      Floats v[kLanes] = {};
      for (Index i = 0; i < left; ++i) v[i] = load(from + (l + i) * kPanel + c) * f;
      transpose(v);
      for (Index i = 0; i < columns; ++i) {
        float* to = rows[c + i] + l;
        if (left == kLanes) {
          store(to, kAdd ? load(to) + v[i] : v[i]);
        } else {
          store_partial(to, kAdd ? load_partial(to, left) + v[i] : v[i], left);
        }
      }
    }
  }
}

/// to[c · width + l] = factor · rows[c][l], zero for l ≥ n and for columns from `count` to a
/// multiple of kPanel.
GRAFT_SIMD_FN inline void copy_rows(const float* const* rows, Index count, Index n, Index width,
                                    float factor, float* to) noexcept {
  for (Index c = 0; c < count; ++c) {
    for (Index l = 0; l < width; l += kLanes) {
      const Index left = std::clamp<Index>(n - l, 0, kLanes);
      const Floats v = left == kLanes ? load(rows[c] + l) : load_partial(rows[c] + l, left);
      store(to + c * width + l, v * factor);
    }
  }
  std::fill(to + count * width, to + round_up(count, kPanel) * width, 0.0f);
}

/// Scores times log2 e of keys k0 … k0 + n − 1 for panel p of the columns, as rows of s with
/// distance lds.
///
/// q: the panel's queries [head_dim][32], already multiplied by plan.query_factor. slope (not null
/// where the slope of the cap is wanted) has the same distance. spare: n · 32 values.
template <class Products>
GRAFT_SIMD_FN inline void panel_scores(const AttentionPlan<float>& plan, const AttentionColumns& at,
                                       Index p, Index k0, Index n, typename Products::Right q,
                                       typename Products::Left k, float* s, Index lds, float* slope,
                                       float* spare) noexcept {
  const AttentionArgs<float>& a = plan.args;
  Products::product(n, kPanel, a.head_dim, k, q, 0.0f, s, lds);
  if (a.softcap > 0.0f) {
    const float cap = a.softcap * kLog2E;
    for (Index j = 0; j < n; ++j) {
      for (Index c = 0; c < kPanel; c += kLanes) {
        const Floats t = tanh(load(s + j * lds + c));
        store(s + j * lds + c, t * cap);
        if (slope != nullptr) store(slope + j * lds + c, (1.0f - t) * (1.0f + t));
      }
    }
  }
  if (a.bias != nullptr) {
    const float* rows[kPanel];
    const Index count = std::min<Index>(kPanel, at.count - p * kPanel);
    for (Index c = 0; c < count; ++c) rows[c] = a.bias + plan.bias_of(at, p * kPanel + c) + k0;
    transpose_in(rows, count, n, kLog2E, spare);
    for (Index j = 0; j < n; ++j)
      for (Index c = 0; c < kPanel; c += kLanes)
        store(s + j * lds + c, load(s + j * lds + c) + load(spare + j * kPanel + c));
  }
  const Floats none = broadcast(-__builtin_inff());
  if (k0 < at.panel_first[p] || k0 + n - 1 > at.panel_last[p]) {
    for (Index c = 0; c < kPanel; c += kLanes) {
      const Ints first = load(at.first_key + p * kPanel + c);
      const Ints last = load(at.last_key + p * kPanel + c);
      Ints key = broadcast(static_cast<std::int32_t>(k0));
      for (Index j = 0; j < n; ++j, key += 1) {
        const Floats v = load(s + j * lds + c);
        store(s + j * lds + c, select((key >= first) & (key <= last), v, none));
      }
    }
  }
  if (a.key_mask != nullptr) {
    const unsigned char* mask = a.key_mask + at.b * a.kv_len + k0;
    for (Index j = 0; j < n; ++j) {
      if (mask[j] != 0) continue;
      for (Index c = 0; c < kPanel; c += kLanes) store(s + j * lds + c, none);
    }
  }
}

/// Rows of K or V that tiles read side by side; copied if they would share too few cache lines'
/// places, unless they are copied later on.
template <bool kCopied>
GRAFT_SIMD_FN inline const float* block_rows(const float* from, Index* stride, Index rows,
                                             Index cols, float* spare) noexcept {
  if (kCopied || *stride % 512 != 0) return from;
  const Index width = round_up(cols, kLanes) + kLanes;
  for (Index i = 0; i < rows; ++i) std::copy_n(from + i * *stride, cols, spare + i * width);
  *stride = width;
  return spare;
}

/// One block of columns: output and log of the denominators. `product_scratch` is that of Products.
template <class Products = FloatProducts>
GRAFT_SIMD_FN inline void attention_forward_block(const AttentionPlan<float>& plan,
                                                  const AttentionColumns& at, float* scratch,
                                                  float* product_scratch) noexcept {
  constexpr Index kPanels = kAttentionColumns / kPanel;
  const AttentionArgs<float>& a = plan.args;
  const Index d = a.head_dim, e = plan.v_dim;
  const Index panels = (at.count + kPanel - 1) / kPanel;
  float* const q = scratch;                          // [panel][d][32]
  float* const out = q + kAttentionColumns * d;      // [panel][e][32]
  float* const s = out + kAttentionColumns * e;      // [key][32]
  float* const spare = s + kAttentionKeys * kPanel;  // [key][32]
  float* const key_rows = spare + kAttentionKeys * kPanel;
  const float infinity = __builtin_inff();
  float highest[kAttentionColumns], total[kAttentionColumns];
  float* rows[kAttentionColumns];
  bool fresh[kPanels];
  Products products(product_scratch);
  typename Products::Right queries[kPanels];

  for (Index c = 0; c < at.count; ++c)
    rows[c] = const_cast<float*>(a.q) + plan.row_of(at, c) * a.ldq + plan.head_of(at, c) * d;
  for (Index p = 0; p < panels; ++p) {
    transpose_in(rows + p * kPanel, std::min<Index>(kPanel, at.count - p * kPanel), d,
                 plan.query_factor, q + p * kPanel * d);
    queries[p] = products.right(q + p * kPanel * d, kPanel, d, kPanel);
    fresh[p] = true;
  }
  std::fill_n(highest, kAttentionColumns, -infinity);
  std::fill_n(total, kAttentionColumns, 0.0f);

  const float* const keys = a.k + at.b * a.kv_len * a.ldk + at.g * d;
  const float* const values = a.v + at.b * a.kv_len * a.ldv + at.g * e;
  for (Index k0 = at.key_begin; k0 < at.key_end; k0 += kAttentionKeys) {
    const Index n = std::min(kAttentionKeys, at.key_end - k0);
    Products block = products;
    Index ldk = a.ldk;
    const float* const k = block_rows<Products::kCopies>(keys + k0 * a.ldk, &ldk, n, d, key_rows);
    const auto k_rows = block.rows(k, ldk, n, d);
    const auto v_columns = block.columns(values + k0 * a.ldv, a.ldv, e, n);
    for (Index p = 0; p < panels; ++p) {
      panel_scores<Products>(plan, at, p, k0, n, queries[p], k_rows, s, kPanel, nullptr, spare);
      float* const o = out + p * kPanel * e;
      for (Index c = 0; c < kPanel; c += kLanes) {
        float* const m = highest + p * kPanel + c;
        float* const sum = total + p * kPanel + c;
        const float* const column = s + c;
        const Floats before = load(m);
        Floats top[4] = {before, before, before, before};
        Index j = 0;
        for (; j + 4 <= n; j += 4) {
          GRAFT_UNROLL
          for (int u = 0; u < 4; ++u) top[u] = max(load(column + (j + u) * kPanel), top[u]);
        }
        for (; j < n; ++j) top[0] = max(load(column + j * kPanel), top[0]);
        const Floats now = max(max(top[0], top[1]), max(top[2], top[3]));
        const Floats shift = select(now == broadcast(-infinity), Floats{}, now);
        Floats part[2] = {};
        for (j = 0; j + 2 <= n; j += 2) {
          GRAFT_UNROLL
          for (int u = 0; u < 2; ++u) {
            const Floats e2 = exp2_small(load(column + (j + u) * kPanel) - shift);
            store(s + c + (j + u) * kPanel, e2);
            part[u] += e2;
          }
        }
        for (; j < n; ++j) {
          const Floats e2 = exp2_small(load(column + j * kPanel) - shift);
          store(s + c + j * kPanel, e2);
          part[0] += e2;
        }
        const Floats shrink = exp2_small(before - shift);
        store(m, now);
        store(sum, fma(load(sum), shrink, part[0] + part[1]));
        if (!fresh[p] && sum_of_lanes(select(now != before, broadcast(1.0f), Floats{})) > 0.0f) {
          for (Index l = 0; l < e; ++l)
            store(o + l * kPanel + c, load(o + l * kPanel + c) * shrink);
        }
      }
      Products::product(e, kPanel, n, v_columns, Products(block).right(s, kPanel, n, kPanel),
                        fresh[p] ? 0.0f : 1.0f, o, kPanel);
      fresh[p] = false;
    }
  }

  for (Index c = 0; c < at.count; ++c) {
    if (plan.lse != nullptr)
      plan.lse[plan.lse_of(at, c)] =
          total[c] == 0.0f ? -infinity : highest[c] * kLn2 + std::log(total[c]);
    total[c] = total[c] == 0.0f ? 0.0f : 1.0f / total[c];
    rows[c] = plan.out + plan.row_of(at, c) * plan.ldo + plan.head_of(at, c) * e;
  }
  for (Index p = 0; p < panels; ++p) {
    if (fresh[p]) std::fill_n(out + p * kPanel * e, kPanel * e, 0.0f);
    transpose_out<false>(out + p * kPanel * e, total + p * kPanel, e, rows + p * kPanel,
                         std::min<Index>(kPanel, at.count - p * kPanel));
  }
}

/// The same for at most kAttentionFewColumns columns, as in generation: lanes are keys, then
/// values. Gives what join_few needs: the highest scores of the columns, their totals, and their
/// sums of values, round_up(v_dim, kPanel) apart.
GRAFT_SIMD_FN inline void attention_forward_few(const AttentionPlan<float>& plan,
                                                const AttentionColumns& at, float* scratch,
                                                float* part) noexcept {
  const AttentionArgs<float>& a = plan.args;
  const Index d = a.head_dim, e = plan.v_dim, e_width = round_up(e, kPanel);
  float* const q = scratch;                               // [column][d]
  float* const out = q + kAttentionFewColumns * d;        // [column][e_width]
  float* const s = out + kAttentionFewColumns * e_width;  // [column][key]
  float* const value_rows = s + kAttentionFewColumns * kAttentionFewKeys;
  const float infinity = __builtin_inff();
  float highest[kAttentionFewColumns], total[kAttentionFewColumns];
  for (Index c = 0; c < at.count; ++c) {
    const float* from = a.q + plan.row_of(at, c) * a.ldq + plan.head_of(at, c) * d;
    for (Index l = 0; l < d; ++l) q[c * d + l] = from[l] * plan.query_factor;
    highest[c] = -infinity;
    total[c] = 0.0f;
  }
  std::fill_n(out, at.count * e_width, 0.0f);

  const float* const keys = a.k + at.b * a.kv_len * a.ldk + at.g * d;
  const float* const values = a.v + at.b * a.kv_len * a.ldv + at.g * e;
  for (Index j = at.key_begin; j < std::min(at.key_end, at.key_begin + kAttentionFewAhead); ++j)
    for (Index l = 0; l < d; l += 16) __builtin_prefetch(keys + j * a.ldk + l);
  for (Index k0 = at.key_begin; k0 < at.key_end; k0 += kAttentionFewKeys) {
    const Index n = std::min(kAttentionFewKeys, at.key_end - k0), padded = round_up(n, kLanes);
    for (Index j = 0; j < n; j += kDotCols) {
      const float* rows[kDotCols];
      for (Index u = 0; u < kDotCols; ++u) rows[u] = keys + (k0 + std::min(j + u, n - 1)) * a.ldk;
      // Neither keys nor values lie one behind the other: they are fetched ahead here.
      const Index next = k0 + j + kAttentionFewAhead;
      for (Index u = 0; u < kDotCols; ++u) {
        for (Index l = 0; l < (next + u < a.kv_len ? d : 0); l += 16)
          __builtin_prefetch(keys + (next + u) * a.ldk + l);
        for (Index l = 0; l < (k0 + j + u < at.key_end ? e : 0); l += 16)
          __builtin_prefetch(values + (k0 + j + u) * a.ldv + l);
      }
      for (Index c = 0; c < at.count; c += kMaxDotRows) {
        const Index columns = std::min<Index>(kMaxDotRows, at.count - c);
        float dots[kMaxDotRows * kDotCols];
        run_dot(static_cast<int>(columns), q + c * d, d, rows, d, dots);
        for (Index i = 0; i < columns; ++i)
          std::copy_n(dots + i * kDotCols, kDotCols, s + (c + i) * kAttentionFewKeys + j);
      }
    }
    for (Index c = 0; c < at.count; ++c) {
      float* const row = s + c * kAttentionFewKeys;
      if (a.softcap > 0.0f) {
        for (Index j = 0; j < padded; j += kLanes)
          store(row + j, tanh(load(row + j)) * (a.softcap * kLog2E));
      }
      if (a.bias != nullptr) {
        const float* bias = a.bias + plan.bias_of(at, c) + k0;
        for (Index j = 0; j < n; ++j) row[j] += bias[j] * kLog2E;
      }
      const Index first = std::clamp<Index>(at.first_key[c] - k0, 0, n);
      const Index last = std::clamp<Index>(at.last_key[c] + 1 - k0, 0, n);
      std::fill(row, row + first, -infinity);
      std::fill(row + last, row + padded, -infinity);
      if (a.key_mask != nullptr) {
        const unsigned char* mask = a.key_mask + at.b * a.kv_len + k0;
        for (Index j = 0; j < n; ++j)
          if (mask[j] == 0) row[j] = -infinity;
      }
      const float before = highest[c];
      Floats top = broadcast(before);
      for (Index j = 0; j < padded; j += kLanes) top = max(load(row + j), top);
      const float now = max_of_lanes(top), shift = now == -infinity ? 0.0f : now;
      Floats sums{};
      for (Index j = 0; j < padded; j += kLanes) {
        const Floats e2 = exp2_small(load(row + j) - shift);
        store(row + j, e2);
        sums += e2;
      }
      const float shrink = exp2_small(broadcast(before - shift))[0];
      highest[c] = now;
      total[c] = total[c] * shrink + sum_of_lanes(sums);
      if (now != before) {
        for (Index l = 0; l < e_width; l += kLanes)
          store(out + c * e_width + l, load(out + c * e_width + l) * shrink);
      }
    }
    const float* v = values + k0 * a.ldv;
    Index ldv = a.ldv, width = e;
    if (e % kTileCols != 0) {  // tiles read whole vectors
      for (Index j = 0; j < n; ++j) {
        std::copy_n(v + j * a.ldv, e, value_rows + j * e_width);
        std::fill_n(value_rows + j * e_width + e, e_width - e, 0.0f);
      }
      v = value_rows;
      ldv = width = e_width;
    }
    block_product(at.count, width, n, s, kAttentionFewKeys, 1, v, ldv, 1.0f, out, e_width);
  }
  std::copy_n(highest, at.count, part);
  std::copy_n(total, at.count, part + at.count);
  std::copy_n(out, at.count * e_width, part + 2 * at.count);
}

/// Puts the parts of attention_forward_few together.
GRAFT_SIMD_FN inline void join_few(const AttentionPlan<float>& plan, const AttentionColumns& at,
                                   const float* parts, Index count, Index part_size) noexcept {
  const Index e = plan.v_dim, width = round_up(e, kPanel);
  for (Index c = 0; c < at.count; ++c) {
    float highest = -__builtin_inff(), total = 0.0f;
    for (Index p = 0; p < count; ++p) highest = std::max(highest, parts[p * part_size + c]);
    const float shift = highest == -__builtin_inff() ? 0.0f : highest;
    float* const to = plan.out + plan.row_of(at, c) * plan.ldo + plan.head_of(at, c) * e;
    for (Index p = 0; p < count; ++p) {
      const float* const part = parts + p * part_size;
      const float factor = exp2_small(broadcast(part[c] - shift))[0];
      total += factor * part[at.count + c];
      const float* const from = part + 2 * at.count + c * width;
      for (Index l = 0; l < e; l += kLanes) {
        const Index left = std::min<Index>(e - l, kLanes);
        const Floats sum = p == 0 ? Floats{} : load_partial(to + l, left);
        store_partial(to + l, fma(factor, load(from + l), sum), left);
      }
    }
    if (plan.lse != nullptr)
      plan.lse[plan.lse_of(at, c)] =
          total == 0.0f ? -__builtin_inff() : highest * kLn2 + std::log(total);
    const float factor = total == 0.0f ? 0.0f : 1.0f / total;
    for (Index l = 0; l < e; ++l) to[l] *= factor;
  }
}

/// Gradients of one block of columns; dk and dv point at key 0 of this key/value head.
template <class Products = FloatProducts>
GRAFT_SIMD_FN inline void attention_backward_block(const AttentionPlan<float>& plan,
                                                   const AttentionColumns& at, float* dk,
                                                   Index lddk, float* dv, Index lddv,
                                                   float* scratch,
                                                   float* product_scratch) noexcept {
  const AttentionArgs<float>& a = plan.args;
  const Index d = a.head_dim, e = plan.v_dim;
  const Index d_width = round_up(d, kPanel), e_width = round_up(e, kPanel);
  const Index panels = (at.count + kPanel - 1) / kPanel;
  constexpr Index kBlock = kAttentionKeys * kAttentionColumns;
  float* const q = scratch;                                     // [panel][d][32]
  float* const dy = q + kAttentionColumns * d;                  // [panel][e][32]
  float* const dq = dy + kAttentionColumns * e;                 // [panel][d][32]
  float* const q_rows = dq + kAttentionColumns * d;             // [column][d_width]
  float* const dy_rows = q_rows + kAttentionColumns * d_width;  // [column][e_width]
  float* const prob = dy_rows + kAttentionColumns * e_width;    // [key][64]
  float* const ds = prob + kBlock;                              // [key][64]
  float* const slope = ds + kBlock;                             // [key][64]
  float* const spare = slope + kBlock;                          // [key][32]
  float* const key_rows = spare + kAttentionKeys * kPanel;
  float* const value_rows = key_rows + kAttentionKeys * (d_width + kLanes);
  const float infinity = __builtin_inff();
  float lse[kAttentionColumns] = {}, delta[kAttentionColumns] = {}, factor[kAttentionColumns];
  float* rows[kAttentionColumns];
  Products products(product_scratch);
  typename Products::Right queries[kAttentionColumns / kPanel],
      gradients[kAttentionColumns / kPanel];
  typename Products::Right query_rows{}, gradient_rows{};

  for (Index c = 0; c < at.count; ++c) {
    const float* y = plan.y + plan.row_of(at, c) * plan.ldo + plan.head_of(at, c) * e;
    const float* g = plan.dout + plan.row_of(at, c) * plan.lddo + plan.head_of(at, c) * e;
    rows[c] = const_cast<float*>(g);
    Floats sum{};
    for (Index l = 0; l < e; l += kLanes) {
      const Index left = std::min<Index>(kLanes, e - l);
      sum = left == kLanes ? fma(load(g + l), load(y + l), sum)
                           : fma(load_partial(g + l, left), load_partial(y + l, left), sum);
    }
    delta[c] = sum_of_lanes(sum);
    const float value = plan.lse[plan.lse_of(at, c)];
    lse[c] = value == -infinity ? 0.0f : value * kLog2E;
  }
  for (Index p = 0; p < panels; ++p)
    transpose_in(rows + p * kPanel, std::min<Index>(kPanel, at.count - p * kPanel), e, 1.0f,
                 dy + p * kPanel * e);
  if (dv != nullptr) copy_rows(rows, at.count, e, e_width, 1.0f, dy_rows);
  for (Index c = 0; c < at.count; ++c)
    rows[c] = const_cast<float*>(a.q) + plan.row_of(at, c) * a.ldq + plan.head_of(at, c) * d;
  for (Index p = 0; p < panels; ++p)
    transpose_in(rows + p * kPanel, std::min<Index>(kPanel, at.count - p * kPanel), d,
                 plan.query_factor, q + p * kPanel * d);
  if (dk != nullptr) copy_rows(rows, at.count, d, d_width, a.scale, q_rows);
  for (Index p = 0; p < panels; ++p) {
    queries[p] = products.right(q + p * kPanel * d, kPanel, d, kPanel);
    gradients[p] = products.right(dy + p * kPanel * e, kPanel, e, kPanel);
  }
  if (dk != nullptr) query_rows = products.right(q_rows, d_width, panels * kPanel, d);
  if (dv != nullptr) gradient_rows = products.right(dy_rows, e_width, panels * kPanel, e);

  const float* const keys = a.k + at.b * a.kv_len * a.ldk + at.g * d;
  const float* const values = a.v + at.b * a.kv_len * a.ldv + at.g * e;
  for (Index k0 = at.key_begin; k0 < at.key_end; k0 += kAttentionKeys) {
    const Index n = std::min(kAttentionKeys, at.key_end - k0);
    Index ldk = a.ldk, ldv = a.ldv;
    const float* const k = block_rows<Products::kCopies>(keys + k0 * a.ldk, &ldk, n, d, key_rows);
    const float* const v =
        block_rows<Products::kCopies>(values + k0 * a.ldv, &ldv, n, e, value_rows);
    Products block = products;
    const auto k_rows = block.rows(k, ldk, n, d), v_rows = block.rows(v, ldv, n, e);
    typename Products::Left k_columns{};
    if (plan.dq != nullptr) k_columns = block.columns(k, ldk, d, n);
    for (Index p = 0; p < panels; ++p) {
      float* const s = prob + p * kPanel;
      float* const g = ds + p * kPanel;
      float* const cap = a.softcap > 0.0f ? slope + p * kPanel : nullptr;
      panel_scores<Products>(plan, at, p, k0, n, queries[p], k_rows, s, kAttentionColumns, cap,
                             spare);
      Products::product(n, kPanel, e, v_rows, gradients[p], 0.0f, g, kAttentionColumns);
      for (Index c = 0; c < kPanel; c += kLanes) {
        const Floats shift = load(lse + p * kPanel + c), centre = load(delta + p * kPanel + c);
        for (Index j = 0; j < n; ++j) {
          const Index place = j * kAttentionColumns + c;
          const Floats probability = exp2_small(load(s + place) - shift);
          Floats gradient = probability * (load(g + place) - centre);
          if (plan.dbias != nullptr) store(spare + j * kPanel + c, gradient);
          if (cap != nullptr) gradient *= load(cap + place);
          store(s + place, probability);
          store(g + place, gradient);
        }
      }
      if (plan.dbias != nullptr) {
        const Index count = std::min<Index>(kPanel, at.count - p * kPanel);
        for (Index c = 0; c < count; ++c)
          rows[c] = plan.dbias + plan.bias_of(at, p * kPanel + c) + k0;
        std::fill_n(factor, kPanel, 1.0f);
        transpose_out<true>(spare, factor, n, rows, count);
      }
      if (plan.dq != nullptr)
        Products::product(d, kPanel, n, k_columns,
                          Products(block).right(g, kAttentionColumns, n, kPanel),
                          k0 == at.key_begin ? 0.0f : 1.0f, dq + p * kPanel * d, kPanel);
    }
    const Index columns = panels * kPanel;
    if (dv != nullptr)
      Products::product(n, e, columns, Products(block).rows(prob, kAttentionColumns, n, columns),
                        gradient_rows, 1.0f, dv + k0 * lddv, lddv);
    if (dk != nullptr)
      Products::product(n, d, columns, Products(block).rows(ds, kAttentionColumns, n, columns),
                        query_rows, 1.0f, dk + k0 * lddk, lddk);
  }
  if (plan.dq == nullptr || at.key_begin >= at.key_end) return;
  std::fill_n(factor, kAttentionColumns, a.scale);
  for (Index c = 0; c < at.count; ++c)
    rows[c] = plan.dq + plan.row_of(at, c) * plan.lddq + plan.head_of(at, c) * d;
  for (Index p = 0; p < panels; ++p)
    transpose_out<true>(dq + p * kPanel * d, factor, d, rows + p * kPanel,
                        std::min<Index>(kPanel, at.count - p * kPanel));
}

}  // namespace graft::inline v0_1::kernels::GRAFT_SIMD_NS
