#pragma once

#include <utility>

#include "graft/autograd/ops/compressed_matmul.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicVar<T> compressed_matmul(const BasicVar<T>& x, const BasicVar<T>& w, const BasicTensor<T>& v,
                              Index groups, std::type_identity_t<T> factor) {
  auto& tape = detail::common_tape("compressed_matmul", x, w);
  const Index rows = x.rows(), in = x.cols(), out = w.rows(), p = v.size();
  if (w.cols() != in || groups < 1 || p != (in + groups - 1) / groups)
    throw ShapeError(concat("compressed_matmul: ", x.shape().text(), " times ", w.shape().text(),
                            " with ", groups, " groups of ", p));
  auto y = BasicTensor<T>::empty(x.shape().with_last(out));
  kernels::gemm(false, true, rows, out, in, T{1}, x.value().data(), in, w.value().data(), in, T{0},
                y.data(), out);
  BasicTensor<T> kept;
  if (w.requires_grad()) {
    kept = BasicTensor<T>::zeros({rows, groups});
    for (Index r = 0; r < rows; ++r)
      for (Index g = 0; g * p < in; ++g)
        kept(r, g) =
            kernels::dot(x.value().data() + r * in + g * p, v.data(), std::min(p, in - g * p));
  }
  return tape.record(
      std::move(y), x.requires_grad() || w.requires_grad(),
      [=, gx = x.grad_ref(), gw = w.grad_ref(), vw = w.value()](const BasicTensor<T>& dy) {
        if (gx) {
          auto [dx, accumulate] = gx.buffer();
          kernels::gemm(false, false, rows, in, out, T{1}, dy.data(), out, vw.data(), in,
                        accumulate ? T{1} : T{0}, dx, in);
        }
        if (gw) {
          // dyᵀ times the rows that the pieces stand for: first [out, groups], then spread by v.
          auto sums = BasicTensor<T>::empty({out, groups});
          kernels::gemm(true, false, out, groups, rows, factor, dy.data(), out, kept.data(), groups,
                        T{0}, sums.data(), groups);
          T* dw = gw.accumulator();
          for (Index o = 0; o < out; ++o)
            for (Index i = 0; i < in; ++i) dw[o * in + i] += sums(o, i / p) * v[i % p];
        }
      });
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T)                                                     \
  template BasicVar<T> compressed_matmul(const BasicVar<T>&, const BasicVar<T>&, \
                                         const BasicTensor<T>&, Index, T);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1
