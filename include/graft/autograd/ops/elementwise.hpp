#pragma once

#include "graft/autograd/ops/broadcast.hpp"
#include "graft/autograd/ops/common.hpp"
#include "graft/base/splitmix.hpp"

namespace graft::inline v0_1 {

namespace detail {

template <class T>
BasicTensor<T> scaled(const BasicTensor<T>& x, T factor);

}  // namespace detail

/// a + b, with broadcasting.
template <std::floating_point T>
BasicVar<T> add(const BasicVar<T>& a, const BasicVar<T>& b);

/// a - b, with broadcasting.
template <std::floating_point T>
BasicVar<T> sub(const BasicVar<T>& a, const BasicVar<T>& b);

/// a ⊙ b, with broadcasting.
template <std::floating_point T>
BasicVar<T> mul(const BasicVar<T>& a, const BasicVar<T>& b);

/// a / b elementwise, with broadcasting.
template <std::floating_point T>
BasicVar<T> div(const BasicVar<T>& a, const BasicVar<T>& b);

/// y = f(x) elementwise with derivative df(x, y).
template <std::floating_point T, class F, class DF>
BasicVar<T> unary(const BasicVar<T>& x, F f, DF df) {
  auto y = BasicTensor<T>::empty(x.shape());
  const auto vx = x.value();
  detail::parallel_chunks(y.size(), [&](Index first, Index last) {
    for (Index i = first; i < last; ++i) y[i] = f(vx[i]);
  });
  return x.tape().record(y, x.requires_grad(),
                         [gx = x.grad_ref(), vx, y, df](const BasicTensor<T>& dy) {
                           auto dx = BasicTensor<T>::empty(y.shape());
                           detail::parallel_chunks(y.size(), [&](Index first, Index last) {
                             for (Index i = first; i < last; ++i) dx[i] = dy[i] * df(vx[i], y[i]);
                           });
                           gx.add(dx);
                         });
}

/// factor · x
template <std::floating_point T>
BasicVar<T> scale(const BasicVar<T>& x, std::type_identity_t<T> factor);

/// x + c
template <std::floating_point T>
BasicVar<T> add_scalar(const BasicVar<T>& x, std::type_identity_t<T> c);

template <std::floating_point T>
BasicVar<T> exp(const BasicVar<T>& x);
template <std::floating_point T>
BasicVar<T> log(const BasicVar<T>& x);
template <std::floating_point T>
BasicVar<T> sqrt(const BasicVar<T>& x);
template <std::floating_point T>
BasicVar<T> square(const BasicVar<T>& x);
template <std::floating_point T>
BasicVar<T> abs(const BasicVar<T>& x);
template <std::floating_point T>
BasicVar<T> sin(const BasicVar<T>& x);
template <std::floating_point T>
BasicVar<T> cos(const BasicVar<T>& x);
/// log(1 + exp(x))
template <std::floating_point T>
BasicVar<T> softplus(const BasicVar<T>& x);
/// x limited to [low, high]; the gradient is zero outside.
template <std::floating_point T>
BasicVar<T> clamp(const BasicVar<T>& x, std::type_identity_t<T> low, std::type_identity_t<T> high);

/// Activation functions of kernels::Activation.
template <std::floating_point T>
BasicVar<T> activation(kernels::Activation kind, const BasicVar<T>& x);
template <std::floating_point T>
BasicVar<T> relu(const BasicVar<T>& x) {
  return activation(kernels::Activation::relu, x);
}
template <std::floating_point T>
BasicVar<T> tanh(const BasicVar<T>& x) {
  return activation(kernels::Activation::tanh, x);
}
template <std::floating_point T>
BasicVar<T> sigmoid(const BasicVar<T>& x) {
  return activation(kernels::Activation::sigmoid, x);
}
template <std::floating_point T>
BasicVar<T> silu(const BasicVar<T>& x) {
  return activation(kernels::Activation::silu, x);
}
template <std::floating_point T>
BasicVar<T> gelu(const BasicVar<T>& x) {
  return activation(kernels::Activation::gelu, x);
}

/// act(gate) ⊙ up: the gated feed-forward product, one pass forward and one backward.
template <std::floating_point T>
BasicVar<T> gated(kernels::Activation kind, const BasicVar<T>& gate, const BasicVar<T>& up);

/// Inverted dropout: each element is zero with probability p, else divided by 1 - p. The identity
/// outside of training. The pattern is a function of the tape's seed and the number of random
/// operations before this one.
template <std::floating_point T>
BasicVar<T> dropout(const BasicVar<T>& x, double p);

template <std::floating_point T>
BasicVar<T> operator+(const BasicVar<T>& a, const BasicVar<T>& b) {
  return add(a, b);
}
template <std::floating_point T>
BasicVar<T> operator-(const BasicVar<T>& a, const BasicVar<T>& b) {
  return sub(a, b);
}
template <std::floating_point T>
BasicVar<T> operator*(const BasicVar<T>& a, const BasicVar<T>& b) {
  return mul(a, b);
}
template <std::floating_point T>
BasicVar<T> operator/(const BasicVar<T>& a, const BasicVar<T>& b) {
  return div(a, b);
}

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/autograd/ops/impl/elementwise_impl.hpp"
#endif
