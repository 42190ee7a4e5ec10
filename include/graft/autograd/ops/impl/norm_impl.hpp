#pragma once

#include <utility>

#include "graft/autograd/ops/norm.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicVar<T> rms_norm(const BasicVar<T>& x, const BasicVar<T>& weight, std::type_identity_t<T> eps,
                     std::type_identity_t<T> weight_offset) {
  const Index n = x.cols(), rows = x.rows();
  if (weight && weight.size() != n)
    throw ShapeError(concat("rms_norm: weight ", weight.shape().text(), " for rows of ", n));
  auto y = BasicTensor<T>::empty(x.shape());
  auto inv = BasicTensor<T>::empty({rows});
  const auto vw = weight ? weight.value() : BasicTensor<T>{};
  kernels::rms_norm_forward(x.value().data(), rows, n, n, vw.data(), eps, weight_offset, y.data(),
                            n, inv.data());
  const auto kept = x.saved();
  auto result = x.tape().record(
      std::move(y), x.requires_grad() || weight.requires_grad(),
      [=, gx = x.grad_ref(), gw = weight.grad_ref()](const BasicTensor<T>& dy) {
        kernels::rms_norm_backward(kept.get().data(), rows, n, n, vw.data(), weight_offset,
                                   inv.data(), dy.data(), n, gx ? gx.accumulator() : nullptr, n,
                                   gw ? gw.accumulator() : nullptr);
      });
  return x.tape().recomputable(std::move(result), [=] {
    auto again = BasicTensor<T>::empty(kept.get().shape());
    auto scratch = BasicTensor<T>::empty({rows});
    kernels::rms_norm_forward(kept.get().data(), rows, n, n, vw.data(), eps, weight_offset,
                              again.data(), n, scratch.data());
    return again;
  });
}

template <std::floating_point T>
BasicVar<T> layer_norm(const BasicVar<T>& x, const BasicVar<T>& weight, const BasicVar<T>& bias,
                       std::type_identity_t<T> eps) {
  const Index n = x.cols(), rows = x.rows();
  if ((weight && weight.size() != n) || (bias && bias.size() != n))
    throw ShapeError(
        concat("layer_norm: weight or bias does not have the ", n, " elements of a row"));
  auto y = BasicTensor<T>::empty(x.shape());
  auto mean = BasicTensor<T>::empty({rows});
  auto inv = BasicTensor<T>::empty({rows});
  const auto vw = weight ? weight.value() : BasicTensor<T>{};
  const auto vb = bias ? bias.value() : BasicTensor<T>{};
  kernels::layer_norm_forward(x.value().data(), rows, n, n, vw.data(), vb.data(), eps, y.data(), n,
                              mean.data(), inv.data());
  const auto kept = x.saved();
  auto result = x.tape().record(
      std::move(y), x.requires_grad() || weight.requires_grad() || bias.requires_grad(),
      [=, gx = x.grad_ref(), gw = weight.grad_ref(),
       gb = bias.grad_ref()](const BasicTensor<T>& dy) {
        kernels::layer_norm_backward(kept.get().data(), rows, n, n, vw.data(), mean.data(),
                                     inv.data(), dy.data(), n, gx ? gx.accumulator() : nullptr, n,
                                     gw ? gw.accumulator() : nullptr,
                                     gb ? gb.accumulator() : nullptr);
      });
  return x.tape().recomputable(std::move(result), [=] {
    auto again = BasicTensor<T>::empty(kept.get().shape());
    auto scratch = BasicTensor<T>::empty({2 * rows});
    kernels::layer_norm_forward(kept.get().data(), rows, n, n, vw.data(), vb.data(), eps,
                                again.data(), n, scratch.data(), scratch.data() + rows);
    return again;
  });
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T)                                                   \
  template BasicVar<T> rms_norm(const BasicVar<T>&, const BasicVar<T>&, T, T); \
  template BasicVar<T> layer_norm(const BasicVar<T>&, const BasicVar<T>&, const BasicVar<T>&, T);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1
