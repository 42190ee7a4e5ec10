#pragma once

#include <cmath>

#include "graft/adapters/named_activation.hpp"

namespace graft::inline v0_1::detail {

template <std::floating_point T>
bool named_activation(std::string_view name, const BasicVar<T>& x, BasicVar<T>& y) {
  using A = kernels::Activation;
  if (name == "relu") {
    y = activation(A::relu, x);
  } else if (name == "gelu" || name == "gelu_python") {
    y = activation(A::gelu, x);
  } else if (name == "gelu_new" || name == "gelu_tanh" || name == "gelu_pytorch_tanh" ||
             name == "gelu_python_tanh" || name == "gelu_fast" || name == "gelu_accurate") {
    y = activation(A::gelu_tanh, x);
  } else if (name == "gelu_10") {
    y = clamp(activation(A::gelu, x), T{-10}, T{10});
  } else if (name == "silu" || name == "swish") {
    y = activation(A::silu, x);
  } else if (name == "sigmoid") {
    y = activation(A::sigmoid, x);
  } else if (name == "tanh") {
    // The derivative from the input: 1 − y² has no digits left where y is nearly ±1.
    y = unary(
        x, [](T v) { return std::tanh(v); },
        [](T v, T) {
          const T e = std::exp(-2 * std::abs(v));
          return 4 * e / ((1 + e) * (1 + e));
        });
  } else if (name == "quick_gelu") {
    y = activation(A::quick_gelu, x);
  } else if (name == "linear" || name == "identity") {
    y = x;
  } else if (name == "leaky_relu" || name == "leakyrelu") {
    y = unary(
        x, [](T v) { return v > 0 ? v : v / 100; },
        [](T v, T) { return v > 0 ? T{1} : T{1} / 100; });
  } else if (name == "elu") {
    y = unary(
        x, [](T v) { return v > 0 ? v : std::expm1(v); },
        [](T v, T) { return v > 0 ? T{1} : std::exp(v); });
  } else if (name == "softplus") {
    y = softplus(x);
  } else if (name == "relu2") {
    y = square(activation(A::relu, x));
  } else if (name == "relu6") {
    y = clamp(x, T{0}, T{6});
  } else if (name == "mish") {
    y = mul(x, activation(A::tanh, softplus(x)));
  } else if (name == "hardswish") {
    y = mul(x, scale(clamp(add_scalar(x, 3), T{0}, T{6}), T{1} / 6));
  } else {
    return false;
  }
  return true;
}

template <std::floating_point T>
BasicVar<T> apply_activation(std::string_view name, const BasicVar<T>& x) {
  BasicVar<T> y;
  if (!named_activation(name, x, y))
    throw ValueError(concat("activation '", name, "' is not known"));
  return y;
}

GRAFT_KERNEL void require_activation(std::string_view method, std::string_view name) {
  BasicTape<float> tape({.gradients = false});
  BasicVar<float> y;
  if (!named_activation(name, tape.constant(BasicTensor<float>::zeros({1})), y))
    throw ValueError(concat(method, ": activation '", name, "' is not known"));
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T)                                                          \
  template bool named_activation(std::string_view, const BasicVar<T>&, BasicVar<T>&); \
  template BasicVar<T> apply_activation(std::string_view, const BasicVar<T>&);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1::detail
