// Attention over blocks for one instruction set, on the register tiles of the products. No include guard.
namespace graft::kernels::GRAFT_SIMD_NS {

using graft::kernels::detail::AttentionPlan;
using graft::kernels::detail::kAttentionKeys;
using graft::kernels::detail::kAttentionQueries;

/// C = alpha · A B + beta · C for a few rows and columns; rows of B can be read up to a multiple of the tile's columns.
GRAFT_SIMD_FN inline void block_product(Index m, Index n, Index k, float alpha, const float* a, Index a_row, Index a_k,
                                        const float* b, Index ldb, float beta, float* c, Index ldc) noexcept {
  Tile t{};
  t.a_row = a_row;
  t.a_k = a_k;
  t.b_k = ldb;
  t.k = k;
  t.ldc = ldc;
  t.alpha = alpha;
  t.beta = beta;
  for (Index j = 0; j < n; j += kTileCols) {
    t.b = b + j;
    t.prefetch = t.b;
    t.cols = std::min<Index>(kTileCols, n - j);
    for (Index i = 0; i < m;) {
      const int rows = next_tile_rows(m - i, kMaxTileRows);
      t.a = a + i * a_row;
      t.c = c + i * ldc + j;
      run_tile(rows, t);
      i += rows;
    }
  }
}

/// Rows of `from` side by side, each padded with zeros to `width`.
GRAFT_SIMD_FN inline void copy_padded(const float* from, Index stride, Index rows, Index cols, Index width,
                                      float* to) noexcept {
  for (Index i = 0; i < rows; ++i) {
    std::copy_n(from + i * stride, cols, to + i * width);
    std::fill_n(to + i * width + cols, width - cols, 0.0f);
  }
}

/// Transposes up to kAttentionKeys rows of `cols` values into panels [cols][32].
GRAFT_SIMD_FN inline void transpose_keys(const float* from, Index stride, Index rows, Index cols, float* to) noexcept {
  for (Index j = 0; j < rows; j += kPanel)
    transpose_to_panel(from + j * stride, stride, std::min(kPanel, rows - j), cols, to + j * cols);
}

/// s = scale · q kᵀ of a block, then cap, bias and masks; s has kAttentionKeys columns a row, those past `keys` are −∞.
GRAFT_SIMD_FN inline void block_scores(const AttentionArgs<float>& a, Index b, Index h, Index q0, Index rows, Index k0,
                                       Index keys, const float* k_panels, float* s) noexcept {
  const float* q = a.q + (b * a.q_len + q0) * a.ldq + h * a.head_dim;
  for (Index j = 0; j < keys; j += kPanel)
    block_product(rows, std::min(kPanel, keys - j), a.head_dim, a.scale, q, a.ldq, 1, k_panels + j * a.head_dim, kPanel,
                  0.0f, s + j, kAttentionKeys);
  const Index shift = a.kv_len - a.q_len;
  const bool edge = (a.causal && k0 + keys - 1 > q0 + shift) ||
                    (a.window > 0 && k0 <= q0 + rows - 1 + shift - a.window) || a.key_mask != nullptr;
  const float none = -__builtin_inff();
  for (Index i = 0; i < rows; ++i) {
    float* row = s + i * kAttentionKeys;
    if (a.softcap > 0) {
      for (Index j = 0; j < keys; ++j) row[j] = a.softcap * std::tanh(row[j] / a.softcap);
    }
    if (a.bias != nullptr) {
      const float* bias = a.bias + (h * a.q_len + q0 + i) * a.kv_len + k0;
      for (Index j = 0; j < keys; ++j) row[j] += bias[j];
    }
    if (edge) {
      const Index at = q0 + i + shift;
      const Index last = a.causal ? std::min(keys, at - k0 + 1) : keys;
      const Index first = a.window > 0 ? std::max<Index>(0, at - a.window + 1 - k0) : 0;
      for (Index j = 0; j < std::min(first, keys); ++j) row[j] = none;
      for (Index j = std::max<Index>(0, last); j < keys; ++j) row[j] = none;
      if (a.key_mask != nullptr)
        for (Index j = 0; j < keys; ++j)
          if (a.key_mask[b * a.kv_len + k0 + j] == 0) row[j] = none;
    }
    for (Index j = keys; j < kAttentionKeys; ++j) row[j] = none;
  }
}

/// One block of queries of all heads that share a key/value head.
GRAFT_SIMD_FN inline void attention_forward_task(const AttentionPlan<float>& plan, Index task, float* scratch) noexcept {
  const AttentionArgs<float>& a = plan.args;
  const Index blocks = plan.query_blocks, q0 = task % blocks * kAttentionQueries;
  const Index pair = task / blocks, b = pair / a.kv_heads, g = pair % a.kv_heads;
  const Index group = a.heads / a.kv_heads, rows = std::min(kAttentionQueries, a.q_len - q0);
  const Index e = plan.v_dim, width = plan.v_width;
  float* const k_panels = scratch;
  float* const v_rows = k_panels + kAttentionKeys * a.head_dim;
  float* const s = v_rows + kAttentionKeys * width;
  float* const sums = s + kAttentionQueries * kAttentionKeys;
  float* const high = sums + group * kAttentionQueries;
  float* const total = high + group * kAttentionQueries;
  const float none = -__builtin_inff();
  std::fill_n(sums, group * kAttentionQueries, 0.0f);
  std::fill_n(high, group * kAttentionQueries, none);
  std::fill_n(total, group * kAttentionQueries * width, 0.0f);

  const auto [first, last] = graft::kernels::detail::visible_keys(a, q0, rows);
  for (Index k0 = first / kAttentionKeys * kAttentionKeys; k0 < last; k0 += kAttentionKeys) {
    const Index keys = std::min(kAttentionKeys, a.kv_len - k0);
    transpose_keys(a.k + (b * a.kv_len + k0) * a.ldk + g * a.head_dim, a.ldk, keys, a.head_dim, k_panels);
    copy_padded(a.v + (b * a.kv_len + k0) * a.ldv + g * e, a.ldv, keys, e, width, v_rows);
    for (Index m = 0; m < group; ++m) {
      block_scores(a, b, g * group + m, q0, rows, k0, keys, k_panels, s);
      for (Index i = 0; i < rows; ++i) {
        float* row = s + i * kAttentionKeys;
        Floats top = load(row);
        for (Index j = kLanes; j < kAttentionKeys; j += kLanes) top = max(load(row + j), top);
        float& old = high[m * kAttentionQueries + i];
        const float now = std::max(old, reduce_max(top));
        if (now == none) {
          for (Index j = 0; j < kAttentionKeys; ++j) row[j] = 0.0f;
          continue;
        }
        Floats sum{};
        for (Index j = 0; j < kAttentionKeys; j += kLanes) {
          const Floats p = exp(load(row + j) - broadcast(now));
          store(row + j, p);
          sum += p;
        }
        float& denominator = sums[m * kAttentionQueries + i];
        const float shrink = old == none ? 0.0f : std::exp(old - now);
        denominator = denominator * shrink + reduce_add(sum);
        if (shrink != 1.0f) {
          float* out = total + (m * kAttentionQueries + i) * width;
          for (Index j = 0; j < width; j += kLanes) store(out + j, load(out + j) * broadcast(shrink));
        }
        old = now;
      }
      block_product(rows, e, keys, 1.0f, s, kAttentionKeys, 1, v_rows, width, 1.0f,
                    total + m * kAttentionQueries * width, width);
    }
  }
  for (Index m = 0; m < group; ++m) {
    const Index h = g * group + m;
    for (Index i = 0; i < rows; ++i) {
      const float denominator = sums[m * kAttentionQueries + i];
      const float factor = denominator > 0 ? 1.0f / denominator : 0.0f;
      const float* from = total + (m * kAttentionQueries + i) * width;
      float* to = plan.out + (b * a.q_len + q0 + i) * plan.ldo + h * e;
      for (Index j = 0; j < e; ++j) to[j] = from[j] * factor;
      plan.lse[(b * a.heads + h) * a.q_len + q0 + i] =
          denominator > 0 ? high[m * kAttentionQueries + i] + std::log(denominator) : none;
    }
  }
}

/// All gradients of one key/value head of one row of the batch.
GRAFT_SIMD_FN inline void attention_backward_task(const AttentionPlan<float>& plan, Index task, float* scratch) noexcept {
  const AttentionArgs<float>& a = plan.args;
  const Index b = task / a.kv_heads, g = task % a.kv_heads, group = a.heads / a.kv_heads;
  const Index d = a.head_dim, e = plan.v_dim, d_width = plan.k_width, e_width = plan.v_width;
  float* const k_panels = scratch;
  float* const v_panels = k_panels + kAttentionKeys * d;
  float* const k_rows = v_panels + kAttentionKeys * e;
  float* const q_rows = k_rows + kAttentionKeys * d_width;
  float* const dy_rows = q_rows + kAttentionQueries * d_width;
  float* const s = dy_rows + kAttentionQueries * e_width;
  float* const ds = s + kAttentionQueries * kAttentionKeys;
  float* const delta = ds + kAttentionQueries * kAttentionKeys;
  const float none = -__builtin_inff();

  for (Index m = 0; m < group; ++m) {  // delta(i) = Σ dy · y
    const Index h = g * group + m;
    for (Index i = 0; i < a.q_len; ++i) {
      const float* dy = plan.dout + (b * a.q_len + i) * plan.lddo + h * e;
      const float* y = plan.y + (b * a.q_len + i) * plan.ldo + h * e;
      Floats sum{};
      Index j = 0;
      for (; j + kLanes <= e; j += kLanes) sum = fma(load(dy + j), load(y + j), sum);
      float rest = 0;
      for (; j < e; ++j) rest += dy[j] * y[j];
      delta[m * a.q_len + i] = reduce_add(sum) + rest;
    }
  }
  for (Index k0 = 0; k0 < a.kv_len; k0 += kAttentionKeys) {
    const Index keys = std::min(kAttentionKeys, a.kv_len - k0);
    const float* k = a.k + (b * a.kv_len + k0) * a.ldk + g * d;
    const float* v = a.v + (b * a.kv_len + k0) * a.ldv + g * e;
    transpose_keys(k, a.ldk, keys, d, k_panels);
    transpose_keys(v, a.ldv, keys, e, v_panels);
    if (plan.dq != nullptr) copy_padded(k, a.ldk, keys, d, d_width, k_rows);
    for (Index q0 = 0; q0 < a.q_len; q0 += kAttentionQueries) {
      const Index rows = std::min(kAttentionQueries, a.q_len - q0);
      const auto [first, last] = graft::kernels::detail::visible_keys(a, q0, rows);
      if (k0 >= last || k0 + keys <= first) continue;
      for (Index m = 0; m < group; ++m) {
        const Index h = g * group + m;
        const float* lse = plan.lse + (b * a.heads + h) * a.q_len + q0;
        const float* dy = plan.dout + (b * a.q_len + q0) * plan.lddo + h * e;
        block_scores(a, b, h, q0, rows, k0, keys, k_panels, s);
        for (Index j = 0; j < keys; j += kPanel)
          block_product(rows, std::min(kPanel, keys - j), e, 1.0f, dy, plan.lddo, 1, v_panels + j * e, kPanel, 0.0f,
                        ds + j, kAttentionKeys);
        for (Index i = 0; i < rows; ++i) {
          float* p = s + i * kAttentionKeys;
          float* slope = ds + i * kAttentionKeys;
          if (lse[i] == none) {
            std::fill_n(p, kAttentionKeys, 0.0f);
            std::fill_n(slope, kAttentionKeys, 0.0f);
            continue;
          }
          for (Index j = keys; j < kAttentionKeys; ++j) slope[j] = 0.0f;
          const Floats centre = broadcast(delta[m * a.q_len + q0 + i]), scale = broadcast(a.scale);
          for (Index j = 0; j < kAttentionKeys; j += kLanes) {
            const Floats score = load(p + j);
            const Floats probability = exp(score - broadcast(lse[i]));
            Floats gradient = probability * (load(slope + j) - centre) * scale;
            if (a.softcap > 0) {  // the score without its bias is softcap · tanh(s / softcap)
              float capped[kLanes], part[kLanes];
              store(capped, score);
              store(part, gradient);
              for (Index l = 0; l < kLanes && j + l < keys; ++l) {
                const float bias =
                    a.bias == nullptr ? 0.0f : a.bias[(h * a.q_len + q0 + i) * a.kv_len + k0 + j + l];
                const float ratio = (capped[l] - bias) / a.softcap;
                part[l] = capped[l] == none ? 0.0f : part[l] * (1.0f - ratio * ratio);
              }
              gradient = load(part);
            }
            store(p + j, probability);
            store(slope + j, gradient);
          }
        }
        if (plan.dv != nullptr) {
          copy_padded(dy, plan.lddo, rows, e, e_width, dy_rows);
          block_product(keys, e, rows, 1.0f, s, 1, kAttentionKeys, dy_rows, e_width, 1.0f,
                        plan.dv + (b * a.kv_len + k0) * plan.lddv + g * e, plan.lddv);
        }
        if (plan.dk != nullptr) {
          copy_padded(a.q + (b * a.q_len + q0) * a.ldq + h * d, a.ldq, rows, d, d_width, q_rows);
          block_product(keys, d, rows, 1.0f, ds, 1, kAttentionKeys, q_rows, d_width, 1.0f,
                        plan.dk + (b * a.kv_len + k0) * plan.lddk + g * d, plan.lddk);
        }
        if (plan.dq != nullptr)
          block_product(rows, d, keys, 1.0f, ds, kAttentionKeys, 1, k_rows, d_width, 1.0f,
                        plan.dq + (b * a.q_len + q0) * plan.lddq + h * d, plan.lddq);
      }
    }
  }
}

}  // namespace graft::kernels::GRAFT_SIMD_NS
