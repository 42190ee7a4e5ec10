// Normalisation of rows for one instruction set. No include guard.
namespace graft::inline v0_1::kernels::GRAFT_SIMD_NS {

using graft::kernels::detail::NormRows;

// Σ (x − shift) (x − shift), or Σ x where kSquare is false.
template <bool kSquare>
GRAFT_SIMD_INLINE float norm_row_sum(const float* x, float shift, Index n) noexcept {
  Floats s[4] = {};
  Index i = 0;
  for (; i + 4 * kLanes <= n; i += 4 * kLanes) {
    GRAFT_UNROLL
    for (int u = 0; u < 4; ++u) {
      const Floats v = load(x + i + u * kLanes) - shift;
      s[u] = kSquare ? fma(v, v, s[u]) : s[u] + v;
    }
  }
  for (; i + kLanes <= n; i += kLanes) {
    const Floats v = load(x + i) - shift;
    s[0] = kSquare ? fma(v, v, s[0]) : s[0] + v;
  }
  float rest = 0;
  for (; i < n; ++i) {
    const float v = x[i] - shift;
    rest += kSquare ? v * v : v;
  }
  return sum_of_lanes((s[0] + s[1]) + (s[2] + s[3])) + rest;
}

/// Rows first … first + count − 1: y = (x − mean) · inv · (weight + offset) + bias.
template <bool kCentred>
GRAFT_SIMD_FN inline void norm_forward_rows(const NormRows<float>& a, float eps, const float* bias,
                                            float* y, Index ldy, float* mean, float* inv,
                                            Index first, Index count) noexcept {
  const float n = static_cast<float>(a.n);
  for (Index r = first; r < first + count; ++r) {
    const float* x = a.x + r * a.ldx;
    float* out = y + r * ldy;
    const float centre = kCentred ? norm_row_sum<false>(x, 0.0f, a.n) / n : 0.0f;
    const float power = norm_row_sum<true>(x, centre, a.n) / n + eps;
    const float factor = 1.0f / __builtin_sqrtf(power);
    if (kCentred && mean != nullptr) mean[r] = centre;
    if (inv != nullptr) inv[r] = factor;
    for (Index i = 0; i < a.n; i += kLanes) {
      const Index m = a.n - i < kLanes ? a.n - i : kLanes;
      const bool whole = m == kLanes;
      Floats v = ((whole ? load(x + i) : load_partial(x + i, m)) - centre) * factor;
      if (a.weight != nullptr)
        v *= (whole ? load(a.weight + i) : load_partial(a.weight + i, m)) + a.offset;
      if (kCentred && bias != nullptr) v += whole ? load(bias + i) : load_partial(bias + i, m);
      if (whole) {
        store(out + i, v);
      } else {
        store_partial(out + i, v, m);
      }
    }
  }
}

/// Gradients of the same rows; dweight and dbias are sums over these rows alone.
template <bool kCentred>
GRAFT_SIMD_FN inline void norm_backward_rows(const NormRows<float>& a, const float* mean,
                                             const float* inv, const float* dy, Index lddy,
                                             float* dx, Index lddx, float* dweight, float* dbias,
                                             Index first, Index count) noexcept {
  const float n = static_cast<float>(a.n);
  for (Index r = first; r < first + count; ++r) {
    const float* x = a.x + r * a.ldx;
    const float* d = dy + r * lddy;
    const float centre = kCentred ? mean[r] : 0.0f;
    const float factor = inv[r];
    Floats g_sum[2] = {}, gz_sum[2] = {};
    int turn = 0;
    for (Index i = 0; i < a.n; i += kLanes, turn ^= 1) {
      const Index m = a.n - i < kLanes ? a.n - i : kLanes;
      const bool whole = m == kLanes;
      const Floats di = whole ? load(d + i) : load_partial(d + i, m);
      const Floats z = ((whole ? load(x + i) : load_partial(x + i, m)) - centre) * factor;
      Floats g = di;
      if (a.weight != nullptr)
        g *= (whole ? load(a.weight + i) : load_partial(a.weight + i, m)) + a.offset;
      if (kCentred) g_sum[0] += g;
      // Beyond the end g is 0, so it does not matter that z is not.
      if (turn == 0) {
        gz_sum[0] = fma(g, z, gz_sum[0]);
      } else {
        gz_sum[1] = fma(g, z, gz_sum[1]);
      }
      if (dweight != nullptr) {
        if (whole) {
          store(dweight + i, fma(di, z, load(dweight + i)));
        } else {
          store_partial(dweight + i, fma(di, z, load_partial(dweight + i, m)), m);
        }
      }
      if (kCentred && dbias != nullptr) {
        if (whole) {
          store(dbias + i, load(dbias + i) + di);
        } else {
          store_partial(dbias + i, load_partial(dbias + i, m) + di, m);
        }
      }
    }
    if (dx == nullptr) continue;
    float* out = dx + r * lddx;
    const float g_mean = kCentred ? sum_of_lanes(g_sum[0]) / n : 0.0f;
    const float gz_mean = sum_of_lanes(gz_sum[0] + gz_sum[1]) / n;
    for (Index i = 0; i < a.n; i += kLanes) {
      const Index m = a.n - i < kLanes ? a.n - i : kLanes;
      const bool whole = m == kLanes;
      const Floats z = ((whole ? load(x + i) : load_partial(x + i, m)) - centre) * factor;
      Floats g = whole ? load(d + i) : load_partial(d + i, m);
      if (a.weight != nullptr)
        g *= (whole ? load(a.weight + i) : load_partial(a.weight + i, m)) + a.offset;
      const Floats step = (g - g_mean - z * gz_mean) * factor;
      if (whole) {
        store(out + i, load(out + i) + step);
      } else {
        store_partial(out + i, load_partial(out + i, m) + step, m);
      }
    }
  }
}

}  // namespace graft::inline v0_1::kernels::GRAFT_SIMD_NS
