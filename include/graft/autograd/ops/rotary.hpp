#pragma once

#include <utility>

#include "graft/autograd/ops/common.hpp"
#include "graft/kernels/rotary.hpp"

namespace graft::inline v0_1 {

/// Rotates pairs of each head's elements by angles that grow with the position (Su et al. 2021).
/// x: [tokens, heads · head_dim]; `cos`, `sin`: [tokens, rotary_dim / 2], frozen.
template <std::floating_point T>
BasicVar<T> rotary(const BasicVar<T>& x, Index heads, const BasicTensor<T>& cos,
                   const BasicTensor<T>& sin,
                   kernels::RotaryStyle style = kernels::RotaryStyle::half) {
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

}  // namespace graft::inline v0_1
