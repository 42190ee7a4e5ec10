// The helpers of simd.hpp as functions that a test can call. No include guard: included per
// instruction set.
namespace graft::kernels::GRAFT_SIMD_NS {

inline Index probe_lanes() { return kLanes; }

GRAFT_SIMD_FN inline void probe_arithmetic(const float* a, const float* b, float* out) {
  const Floats x = load(a), y = load(b);
  store(out, fma(x, y, broadcast(1.5f)));
  store(out + kLanes, max(x, y));
  store(out + 2 * kLanes, min(x, y));
  store(out + 3 * kLanes, abs(x));
  store(out + 4 * kLanes, sqrt(abs(x)));
  store(out + 5 * kLanes, to_floats(to_ints(x)));
  store(out + 6 * kLanes, to_floats(lane_numbers()));
  out[7 * kLanes] = reduce_add(x);
  out[7 * kLanes + 1] = reduce_max(x);
}

GRAFT_SIMD_FN inline float probe_partial(const float* from, float* to, Index count) {
  const Floats v = load_partial(from, count);
  store_partial(to, v, count);
  return reduce_add(v);
}

GRAFT_SIMD_FN inline void probe_exp(const float* x, float* y) { store(y, exp(load(x))); }

}  // namespace graft::kernels::GRAFT_SIMD_NS
