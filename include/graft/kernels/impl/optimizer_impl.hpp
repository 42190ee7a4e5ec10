#pragma once

#include <cmath>

#include "graft/base/profile.hpp"
#include "graft/kernels/impl/chunks.hpp"
#include "graft/kernels/impl/vector_math.hpp"
#include "graft/kernels/optimizer.hpp"

namespace graft::inline v0_1::kernels::detail {

/// What AdamW multiplies with, computed in double.
template <class T>
struct AdamFactors {
  T grad_scale, one_minus_beta1, beta2, one_minus_beta2, inv_root_correction2, eps, decay, step;
};
template <class T>
struct SgdFactors {
  T lr, momentum, fresh, weight_decay, grad_scale;
  bool nesterov, first_step;
};

}  // namespace graft::inline v0_1::kernels::detail

#define GRAFT_FOREACH_FILE "graft/kernels/impl/optimizer_kernels.hpp"
#include "graft/kernels/impl/foreach_isa.hpp"

namespace graft::inline v0_1::kernels::detail {

inline void adamw_block(float* param, const float* grad, float* m, float* v, Index n,
                        const AdamFactors<float>& f) {
  GRAFT_DISPATCH(adamw_block)(param, grad, m, v, n, f);
}
inline void adamw_block(double* param, const double* grad, double* m, double* v, Index n,
                        const AdamFactors<double>& f) {
  for (Index i = 0; i < n; ++i) {
    const double g = grad[i] * f.grad_scale;
    m[i] += f.one_minus_beta1 * (g - m[i]);
    v[i] = v[i] * f.beta2 + f.one_minus_beta2 * g * g;
    const double denominator = std::sqrt(v[i]) * f.inv_root_correction2 + f.eps;
    param[i] = param[i] * f.decay - f.step * m[i] / denominator;
  }
}

inline void sgd_block(float* param, const float* grad, float* buffer, Index n,
                      const SgdFactors<float>& f) {
  GRAFT_DISPATCH(sgd_block)(param, grad, buffer, n, f);
}
inline void sgd_block(double* param, const double* grad, double* buffer, Index n,
                      const SgdFactors<double>& f) {
  for (Index i = 0; i < n; ++i) {
    double g = grad[i] * f.grad_scale + f.weight_decay * param[i];
    if (buffer != nullptr) {
      buffer[i] = f.first_step ? g : f.momentum * buffer[i] + f.fresh * g;
      g = f.nesterov ? g + f.momentum * buffer[i] : buffer[i];
    }
    param[i] -= f.lr * g;
  }
}

}  // namespace graft::inline v0_1::kernels::detail

namespace graft::inline v0_1::kernels {

template <class T>
void adamw_step(T* param, const std::type_identity_t<T>* grad, std::type_identity_t<T>* m,
                std::type_identity_t<T>* v, Index n, double lr, double beta1, double beta2,
                double eps, double weight_decay, double bias_correction1, double bias_correction2,
                double grad_scale) {
  const ProfileScope profile("AdamW", 0, 7.0 * sizeof(T) * static_cast<double>(n));
  const auto t = [](double value) { return static_cast<T>(value); };
  const detail::AdamFactors<T> f{.grad_scale = t(grad_scale),
                                 .one_minus_beta1 = t(1 - beta1),
                                 .beta2 = t(beta2),
                                 .one_minus_beta2 = t(1 - beta2),
                                 .inv_root_correction2 = t(1 / std::sqrt(bias_correction2)),
                                 .eps = t(eps),
                                 .decay = t(1 - lr * weight_decay),
                                 .step = t(lr / bias_correction1)};
  detail::for_chunks(n, [&](Index i, Index count) {
    detail::adamw_block(param + i, grad + i, m + i, v + i, count, f);
  });
}

template <class T>
void sgd_step(T* param, const std::type_identity_t<T>* grad, std::type_identity_t<T>* buffer,
              Index n, double lr, double momentum, double dampening, double weight_decay,
              bool nesterov, bool first_step, double grad_scale) {
  const ProfileScope profile("SGD", 0,
                             (buffer == nullptr ? 3.0 : 5.0) * sizeof(T) * static_cast<double>(n));
  const auto t = [](double value) { return static_cast<T>(value); };
  const detail::SgdFactors<T> f{t(lr),         t(momentum), t(1 - dampening), t(weight_decay),
                                t(grad_scale), nesterov,    first_step};
  detail::for_chunks(n, [&](Index i, Index count) {
    detail::sgd_block(param + i, grad + i, buffer == nullptr ? nullptr : buffer + i, count, f);
  });
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T)                                                                       \
  template void adamw_step<T>(T*, const T*, T*, T*, Index, double, double, double, double, double, \
                              double, double, double);                                             \
  template void sgd_step<T>(T*, const T*, T*, Index, double, double, double, double, bool, bool,   \
                            double);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1::kernels
