#pragma once

#include <utility>

#include "graft/autograd/ops/block_matmul.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicVar<T> block_matmul(const BasicVar<T>& x, const BasicVar<T>& w, Transpose transposed) {
  auto& tape = detail::common_tape("block_matmul", x, w);
  const bool t = transposed == Transpose::yes;
  if (w.shape().rank() != 3 || x.cols() != w.dim(0) * w.dim(t ? 2 : 1))
    throw ShapeError(concat("block_matmul: ", x.shape().text(), " times blocks ", w.shape().text(),
                            t ? "ᵀ" : ""));
  const Index k = w.dim(0), wr = w.dim(1), wc = w.dim(2), p = t ? wc : wr, q = t ? wr : wc;
  const Index rows = x.rows(), in = k * p, out = k * q;
  auto y = BasicTensor<T>::empty(x.shape().with_last(out));
  for (Index n = 0; n < k; ++n)
    kernels::gemm(false, t, rows, q, p, T{1}, x.value().data() + n * p, in,
                  w.value().data() + n * p * q, wc, T{0}, y.data() + n * q, out);
  return tape.record(
      std::move(y), x.requires_grad() || w.requires_grad(),
      [=, gx = x.grad_ref(), gw = w.grad_ref(),
       kept = w.requires_grad() ? x.saved() : BasicSaved<T>{},
       vw = w.value()](const BasicTensor<T>& dy) {
        if (gx) {
          auto [dx, accumulate] = gx.buffer();
          for (Index n = 0; n < k; ++n)
            kernels::gemm(false, !t, rows, p, q, T{1}, dy.data() + n * q, out,
                          vw.data() + n * p * q, wc, accumulate ? T{1} : T{0}, dx + n * p, in);
        }
        if (gw) {
          auto [dw, accumulate] = gw.buffer();
          for (Index n = 0; n < k; ++n) {
            const T* a = kept.get().data() + n * p;
            const T* d = dy.data() + n * q;
            const T beta = accumulate ? T{1} : T{0};
            if (t)
              kernels::gemm(true, false, q, p, rows, T{1}, d, out, a, in, beta, dw + n * p * q, wc);
            else
              kernels::gemm(true, false, p, q, rows, T{1}, a, in, d, out, beta, dw + n * p * q, wc);
          }
        }
      });
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T) \
  template BasicVar<T> block_matmul(const BasicVar<T>&, const BasicVar<T>&, Transpose);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1
