// Rows of a cross-entropy for one instruction set. No include guard.
namespace graft::kernels::GRAFT_SIMD_NS {

/// Largest logit of a row.
GRAFT_SIMD_FN inline float row_maximum(const float* x, Index n) noexcept {
  float top = x[0];
  Index i = 0;
  if (n >= kLanes) {
    Floats lanes = load(x);
    for (i = kLanes; i + kLanes <= n; i += kLanes) lanes = max(load(x + i), lanes);
    top = max_of_lanes(lanes);
  }
  for (; i < n; ++i) top = x[i] > top ? x[i] : top;
  return top;
}

/// Σ e^(x − top).
GRAFT_SIMD_FN inline float row_exp_sum(const float* x, Index n, float top) noexcept {
  Floats s[2] = {};
  Index i = 0;
  for (; i + 2 * kLanes <= n; i += 2 * kLanes) {
    s[0] += exp(load(x + i) - top);
    s[1] += exp(load(x + i + kLanes) - top);
  }
  float rest = 0;
  for (; i < n; ++i) rest += std::exp(x[i] - top);
  return sum_of_lanes(s[0] + s[1]) + rest;
}

/// x = factor · e^(x − log_sum).
GRAFT_SIMD_FN inline void row_softmax(float* x, Index n, float log_sum, float factor) noexcept {
  Index i = 0;
  for (; i + kLanes <= n; i += kLanes) store(x + i, exp(load(x + i) - log_sum) * factor);
  for (; i < n; ++i) x[i] = factor * std::exp(x[i] - log_sum);
}

}  // namespace graft::kernels::GRAFT_SIMD_NS
