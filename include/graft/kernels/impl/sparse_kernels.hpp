// Sparse products of one instruction set. No include guard.
namespace graft::inline v0_1::kernels::GRAFT_SIMD_NS {

/// Columns [first, first + count) of sparse_rows.
GRAFT_SIMD_FN inline void sparse_rows_slice(const SparseGroups& s, const float* values,
                                            const float* x, Index n, Index first, Index count,
                                            float* y) noexcept {
  constexpr Index kWide = 4 * kLanes;
  for (Index g = 0; g < s.groups; ++g) {
    const Index begin = s.start[g], end = s.start[g + 1];
    float* to = y + g * n + first;
    const float* from = x + first;
    Index j = 0;
    for (; j + kWide <= count; j += kWide) {
      Floats sum[4] = {};
      for (Index e = begin; e < end; ++e) {
        const float v = values[s.element[e]];
        const float* row = from + s.other[e] * n + j;
        GRAFT_UNROLL
        for (int u = 0; u < 4; ++u) sum[u] = fma(v, load(row + u * kLanes), sum[u]);
      }
      GRAFT_UNROLL
      for (int u = 0; u < 4; ++u) store(to + j + u * kLanes, sum[u]);
    }
    for (; j < count; j += kLanes) {
      const Index m = count - j < kLanes ? count - j : kLanes;
      Floats sum = {};
      for (Index e = begin; e < end; ++e)
        sum = fma(values[s.element[e]], load_partial(from + s.other[e] * n + j, m), sum);
      store_partial(to + j, sum, m);
    }
  }
}

/// Groups [first, first + count) of sparse_dots.
GRAFT_SIMD_FN inline void sparse_dots_slice(const SparseGroups& s, const float* a, const float* b,
                                            Index n, Index first, Index count, float* d) noexcept {
  for (Index g = first; g < first + count; ++g) {
    const float* left = a + g * n;
    for (Index e = s.start[g]; e < s.start[g + 1]; ++e) {
      const float* right = b + s.other[e] * n;
      Floats sum[4] = {};
      Index j = 0;
      for (; j + 4 * kLanes <= n; j += 4 * kLanes) {
        GRAFT_UNROLL
        for (int u = 0; u < 4; ++u)
          sum[u] = fma(load(left + j + u * kLanes), load(right + j + u * kLanes), sum[u]);
      }
      for (; j < n; j += kLanes) {
        const Index m = n - j < kLanes ? n - j : kLanes;
        sum[0] = fma(load_partial(left + j, m), load_partial(right + j, m), sum[0]);
      }
      d[s.element[e]] = reduce_add((sum[0] + sum[1]) + (sum[2] + sum[3]));
    }
  }
}

}  // namespace graft::inline v0_1::kernels::GRAFT_SIMD_NS
