// Optimiser steps of one instruction set. No include guard.
namespace graft::inline v0_1::kernels::GRAFT_SIMD_NS {

using graft::kernels::detail::AdamFactors;
using graft::kernels::detail::SgdFactors;

struct AdamState {
  Floats param, m, v;
};
GRAFT_SIMD_INLINE AdamState adamw_update(AdamState s, Floats grad,
                                         const AdamFactors<float>& f) noexcept {
  const Floats g = grad * f.grad_scale;
  s.m = fma(f.one_minus_beta1, g - s.m, s.m);
  s.v = fma(f.one_minus_beta2, g * g, s.v * f.beta2);
  const Floats denominator = sqrt(s.v) * f.inv_root_correction2 + f.eps;
  s.param = s.param * f.decay - s.m * f.step / denominator;
  return s;
}

GRAFT_SIMD_FN inline void adamw_block(float* param, const float* grad, float* m, float* v, Index n,
                                      const AdamFactors<float>& f) noexcept {
  Index i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    const AdamState s =
        adamw_update({load(param + i), load(m + i), load(v + i)}, load(grad + i), f);
    store(param + i, s.param);
    store(m + i, s.m);
    store(v + i, s.v);
  }
  if (i < n) {
    const Index rest = n - i;
    const AdamState s = adamw_update(
        {load_partial(param + i, rest), load_partial(m + i, rest), load_partial(v + i, rest)},
        load_partial(grad + i, rest), f);
    store_partial(param + i, s.param, rest);
    store_partial(m + i, s.m, rest);
    store_partial(v + i, s.v, rest);
  }
}

GRAFT_SIMD_FN inline void sgd_block(float* param, const float* grad, float* buffer, Index n,
                                    const SgdFactors<float>& f) noexcept {
  for (Index i = 0; i < n; i += kLanes) {
    const Index rest = n - i < kLanes ? n - i : kLanes;
    Floats p = load_partial(param + i, rest);
    Floats g = fma(f.weight_decay, p, load_partial(grad + i, rest) * f.grad_scale);
    if (buffer != nullptr) {
      const Floats b =
          f.first_step ? g : fma(f.momentum, load_partial(buffer + i, rest), g * f.fresh);
      store_partial(buffer + i, b, rest);
      g = f.nesterov ? fma(f.momentum, b, g) : b;
    }
    store_partial(param + i, p - g * f.lr, rest);
  }
}

}  // namespace graft::inline v0_1::kernels::GRAFT_SIMD_NS
