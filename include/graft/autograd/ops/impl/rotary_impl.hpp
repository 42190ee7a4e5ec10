#pragma once

#include <utility>

#include "graft/autograd/ops/rotary.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicVar<T> rotary(const BasicVar<T>& x, Index heads, const BasicTensor<T>& cos,
                   const BasicTensor<T>& sin, kernels::RotaryStyle style) {
  const Index rows = x.rows(), width = x.cols(), head_dim = width / heads,
              rotary_dim = 2 * cos.cols();
  if (width % heads != 0 || cos.rows() != rows || sin.shape() != cos.shape() ||
      rotary_dim > head_dim)
    throw ShapeError(concat("rotary: x ", x.shape().text(), " with ", heads, " heads, tables ",
                            cos.shape().text(), " and ", sin.shape().text()));
  auto y = BasicTensor<T>::empty(x.shape());
  kernels::rotary(x.value().data(), y.data(), rows, heads, head_dim, width, cos.data(), sin.data(),
                  rotary_dim, style, false);
  return x.tape().record(std::move(y), x.requires_grad(),
                         [=, gx = x.grad_ref()](const BasicTensor<T>& dy) {
                           auto dx = dy.unique() ? dy : BasicTensor<T>::empty(dy.shape());
                           kernels::rotary(dy.data(), dx.data(), rows, heads, head_dim, width,
                                           cos.data(), sin.data(), rotary_dim, style, true);
                           gx.add(dx);
                         });
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T)                                                    \
  template BasicVar<T> rotary(const BasicVar<T>&, Index, const BasicTensor<T>&, \
                              const BasicTensor<T>&, kernels::RotaryStyle);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1
