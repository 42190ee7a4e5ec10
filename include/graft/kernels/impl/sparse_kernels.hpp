// Sparse products of one instruction set. No include guard.
namespace graft::inline v0_1::kernels::GRAFT_SIMD_NS {

/// x + row · ld as one pointer: without the barrier GCC computes the address of each vector anew.
GRAFT_SIMD_INLINE const float* row_of(const float* x, Index row, Index ld) noexcept {
  const float* at = x + row * ld;
  __asm__("" : "+r"(at));
  return at;
}

/// d[place[i]] += the sum of v[i], for i < count.
GRAFT_SIMD_INLINE void add_sums(Floats (&v)[kLanes], const std::int32_t (&place)[kLanes], int count,
                                float* d) noexcept {
  transpose(v);
  GRAFT_UNROLL
  for (int half = kLanes / 2; half > 0; half /= 2) {
    GRAFT_UNROLL
    for (int i = 0; i < half; ++i) v[i] += v[i + half];
  }
  float sums[kLanes];
  store(sums, v[0]);
  for (int i = 0; i < count; ++i) d[place[i]] += sums[i];
}

/// `kVectors` whole vectors of one group of sparse_rows.
template <int kVectors>
GRAFT_SIMD_INLINE void sparse_row(const SparseGroups& s, Index g, const float* values,
                                  const float* x, Index ld, float* y) noexcept {
  Floats sum[kVectors] = {};
  for (Index e = s.start[g]; e < s.start[g + 1]; ++e) {
    const float v = values[s.element[e]];
    const float* row = row_of(x, s.other[e], ld);
    GRAFT_UNROLL
    for (int u = 0; u < kVectors; ++u) sum[u] = fma(v, load(row + u * kLanes), sum[u]);
  }
  GRAFT_UNROLL
  for (int u = 0; u < kVectors; ++u) store(y + u * kLanes, sum[u]);
}

/// sparse_rows for `count` columns, `ld` between the rows of x and of y, and the groups
/// [first, last).
GRAFT_SIMD_FN inline void sparse_rows_slice(const SparseGroups& s, const float* values,
                                            const float* x, Index ld, Index count, Index first,
                                            Index last, float* y) noexcept {
  for (Index g = first; g < last; ++g) {
    float* to = y + g * ld;
    Index j = 0;
    for (; j + 8 * kLanes <= count; j += 8 * kLanes) sparse_row<8>(s, g, values, x + j, ld, to + j);
    for (; j + 2 * kLanes <= count; j += 2 * kLanes) sparse_row<2>(s, g, values, x + j, ld, to + j);
    for (; j < count; j += kLanes) {
      const Index m = std::min<Index>(kLanes, count - j);
      Floats sum = {};
      for (Index e = s.start[g]; e < s.start[g + 1]; ++e)
        sum = fma(values[s.element[e]], load_partial(x + s.other[e] * ld + j, m), sum);
      store_partial(to + j, sum, m);
    }
  }
}

/// Adds `count` columns of sparse_dots to d, for the groups [first, last).
GRAFT_SIMD_FN inline void sparse_dots_slice(const SparseGroups& s, const float* a, const float* b,
                                            Index ld, Index count, Index first, Index last,
                                            float* d) noexcept {
  constexpr Index kHeld = 8;
  Floats sums[kLanes] = {};  // of elements whose lanes are added together
  std::int32_t place[kLanes];
  int pending = 0;
  for (Index g = first; g < last; ++g) {
    for (Index j = 0; j < count; j += kHeld * kLanes) {
      const Index here = count - j;
      const auto lanes = [&](Index u) { return std::clamp<Index>(here - u * kLanes, 0, kLanes); };
      Floats held[kHeld];
      GRAFT_UNROLL
      for (Index u = 0; u < kHeld; ++u)
        held[u] = lanes(u) > 0 ? load_partial(a + g * ld + j + u * kLanes, lanes(u)) : Floats{};
      for (Index e = s.start[g]; e < s.start[g + 1]; ++e) {
        const float* row = row_of(b + j, s.other[e], ld);
        Floats even = {}, odd = {};
        if (here >= kHeld * kLanes) {
          GRAFT_UNROLL
          for (Index u = 0; u < kHeld; u += 2) {
            even = fma(held[u], load(row + u * kLanes), even);
            odd = fma(held[u + 1], load(row + (u + 1) * kLanes), odd);
          }
        } else {
          for (Index u = 0; u < kHeld && lanes(u) > 0; ++u)
            even = fma(held[u], load_partial(row + u * kLanes, lanes(u)), even);
        }
        sums[pending] = even + odd;
        place[pending] = s.element[e];
        if (++pending == kLanes) {
          add_sums(sums, place, pending, d);
          pending = 0;
        }
      }
    }
  }
  add_sums(sums, place, pending, d);
}

}  // namespace graft::inline v0_1::kernels::GRAFT_SIMD_NS
