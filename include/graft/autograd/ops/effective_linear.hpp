#pragma once

#include <utility>

#include "graft/autograd/ops/common.hpp"
#include "graft/kernels/gemm.hpp"

namespace graft::inline v0_1 {

/// y = x Wᵀ + b with W = build(tape), a function of parameters: keeps x, and computes W once more
/// in the backward pass instead of keeping it. x: [..., in], W: [out, in], bias: [out] or empty.
/// `build` must be a pure function of parameters and own what it uses, or outlive the backward
/// pass. @throws ShapeError if the sizes do not fit.
template <std::floating_point T, class Build>
BasicVar<T> effective_linear(const BasicVar<T>& x, const BasicTensor<T>& bias, Build build) {
  auto& tape = x.tape();
  auto options = tape.options();
  options.gradients = false;
  BasicTensor<T> w;
  {
    BasicTape<T> inner(options);
    w = build(inner).value();
  }
  const Index rows = x.rows(), in = x.cols(), out = w.rows();
  if (w.rank() != 2 || w.cols() != in || (bias && bias.size() != out))
    throw ShapeError(
        concat("effective_linear: ", x.shape().text(), " times ", w.shape().text(), "ᵀ"));
  auto y = BasicTensor<T>::empty(x.shape().with_last(out));
  kernels::gemm(false, true, rows, out, in, T{1}, x.value().data(), in, w.data(), in, T{0},
                y.data(), out);
  if (bias)
    for (Index i = 0; i < rows; ++i)
      kernels::add(y.data() + i * out, bias.data(), y.data() + i * out, out);
  options.gradients = true;
  return tape.record(
      std::move(y), true,
      [=, build = std::move(build), kept = x.saved(), gx = x.grad_ref()](const BasicTensor<T>& dy) {
        BasicTape<T> inner(options);
        const auto again = build(inner);
        if (gx) {
          auto [dx, accumulate] = gx.buffer();
          kernels::gemm(false, false, rows, in, out, T{1}, dy.data(), out, again.value().data(), in,
                        accumulate ? T{1} : T{0}, dx, in);
        }
        if (!again.requires_grad()) return;
        auto dw = BasicTensor<T>::empty({out, in});
        kernels::gemm(true, false, out, in, rows, T{1}, dy.data(), out, kept.get().data(), in, T{0},
                      dw.data(), in);
        inner.backward(again, dw);
      });
}

}  // namespace graft::inline v0_1
