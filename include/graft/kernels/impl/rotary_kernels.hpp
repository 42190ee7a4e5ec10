// Rotation of pairs for one instruction set. No include guard.
namespace graft::inline v0_1::kernels::GRAFT_SIMD_NS {

/// `pairs` pairs x[i], x[i + pairs]; sign −1 inverts.
GRAFT_SIMD_FN inline void rotate_halves(float* x, const float* cos, const float* sin, Index pairs,
                                        float sign) noexcept {
  float* z = x + pairs;
  Index i = 0;
  for (; i + kLanes <= pairs; i += kLanes) {
    const Floats c = load(cos + i), s = load(sin + i) * sign, u = load(x + i), v = load(z + i);
    store(x + i, u * c - v * s);
    store(z + i, fma(u, s, v * c));
  }
  if (i < pairs) {
    const Index m = pairs - i;
    const Floats c = load_partial(cos + i, m), s = load_partial(sin + i, m) * sign;
    const Floats u = load_partial(x + i, m), v = load_partial(z + i, m);
    store_partial(x + i, u * c - v * s, m);
    store_partial(z + i, fma(u, s, v * c), m);
  }
}

/// `pairs` pairs x[2 i], x[2 i + 1].
GRAFT_SIMD_FN inline void rotate_neighbours(float* x, const float* cos, const float* sin,
                                            Index pairs, float sign) noexcept {
  Index i = 0;
  for (; i + kLanes <= pairs; i += kLanes) {
    float* p = x + 2 * i;
    const Floats a = load(p), b = load(p + kLanes);
    const Floats c = load(cos + i), s = load(sin + i) * sign;
    const Floats u = even_lanes(a, b), v = odd_lanes(a, b);
    const Floats ru = u * c - v * s, rv = fma(u, s, v * c);
    store(p, interleave_low(ru, rv));
    store(p + kLanes, interleave_high(ru, rv));
  }
  for (; i < pairs; ++i) {
    const float u = x[2 * i], v = x[2 * i + 1], s = sin[i] * sign;
    x[2 * i] = u * cos[i] - v * s;
    x[2 * i + 1] = v * cos[i] + u * s;
  }
}

}  // namespace graft::inline v0_1::kernels::GRAFT_SIMD_NS
