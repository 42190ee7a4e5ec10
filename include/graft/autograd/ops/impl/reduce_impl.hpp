#pragma once

#include <cmath>
#include <utility>

#include "graft/autograd/ops/reduce.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicVar<T> sum(const BasicVar<T>& x) {
  const T total = kernels::sum(x.value().data(), x.size());
  return x.tape().record(BasicTensor<T>::scalar(total), x.requires_grad(),
                         [gx = x.grad_ref()](const BasicTensor<T>& dy) {
                           gx.add(BasicTensor<T>::full(gx.shape(), dy[0]));
                         });
}

template <std::floating_point T>
BasicVar<T> sum_axis(const BasicVar<T>& x, int axis, bool keep) {
  const int a = axis < 0 ? axis + x.shape().rank() : axis;
  const Index size = x.shape().dim(a);
  Index outer = 1, inner = 1;
  Shape kept = x.shape(), dropped;
  for (int i = 0; i < x.shape().rank(); ++i) {
    if (i < a) outer *= x.shape()[i];
    if (i > a) inner *= x.shape()[i];
    if (i != a) dropped.append(x.shape()[i]);
  }
  kept[a] = 1;
  auto y = BasicTensor<T>::zeros(keep ? kept : dropped);
  const auto vx = x.value();
  for (Index o = 0; o < outer; ++o)
    for (Index s = 0; s < size; ++s)
      for (Index i = 0; i < inner; ++i) y[o * inner + i] += vx[(o * size + s) * inner + i];
  return x.tape().record(
      std::move(y), x.requires_grad(), [=, gx = x.grad_ref()](const BasicTensor<T>& dy) {
        auto dx = BasicTensor<T>::empty(gx.shape());
        for (Index o = 0; o < outer; ++o)
          for (Index s = 0; s < size; ++s)
            std::copy_n(dy.data() + o * inner, inner, dx.data() + (o * size + s) * inner);
        gx.add(dx);
      });
}

template <std::floating_point T>
BasicVar<T> norm_last(const BasicVar<T>& x) {
  return unary(
      sum_axis(square(x), -1, true), [](T v) { return std::sqrt(v); },
      [](T, T y) { return y > 0 ? T{0.5} / y : T{0}; });
}

template <std::floating_point T>
BasicVar<T> softmax(const BasicVar<T>& x) {
  auto y = BasicTensor<T>::empty(x.shape());
  kernels::softmax_forward(x.value().data(), y.data(), x.rows(), x.cols());
  return x.tape().record(y, x.requires_grad(), [gx = x.grad_ref(), y](const BasicTensor<T>& dy) {
    kernels::softmax_backward(y.data(), dy.data(), gx.accumulator(), y.rows(), y.cols());
  });
}

template <std::floating_point T>
BasicVar<T> log_sum_exp(const BasicVar<T>& x) {
  const Index n = x.cols();
  auto y = BasicTensor<T>::empty(x.shape().with_last(1));
  const auto vx = x.value();
  for (Index r = 0; r < y.size(); ++r) {
    T high = vx[r * n];
    for (Index j = 1; j < n; ++j) high = std::max(high, vx[r * n + j]);
    T total = 0;
    for (Index j = 0; j < n; ++j) total += std::exp(vx[r * n + j] - high);
    y[r] = high + std::log(total);
  }
  return x.tape().record(y, x.requires_grad(),
                         [gx = x.grad_ref(), vx, y, n](const BasicTensor<T>& dy) {
                           auto dx = BasicTensor<T>::empty(vx.shape());
                           for (Index r = 0; r < y.size(); ++r)
                             for (Index j = 0; j < n; ++j)
                               dx[r * n + j] = dy[r] * std::exp(vx[r * n + j] - y[r]);
                           gx.add(dx);
                         });
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T)                                    \
  template BasicVar<T> sum(const BasicVar<T>&);                 \
  template BasicVar<T> sum_axis(const BasicVar<T>&, int, bool); \
  template BasicVar<T> norm_last(const BasicVar<T>&);           \
  template BasicVar<T> softmax(const BasicVar<T>&);             \
  template BasicVar<T> log_sum_exp(const BasicVar<T>&);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1
