#pragma once

#include <utility>

#include "graft/autograd/ops/matmul.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicVar<T> matmul(const BasicVar<T>& a, const BasicVar<T>& b, Transpose ta, Transpose tb) {
  auto& tape = detail::common_tape("matmul", a, b);
  auto fail = [&](const char* why) {
    throw ShapeError(concat("matmul: ", a.shape().text(), ta == Transpose::yes ? "ᵀ" : "",
                            " times ", b.shape().text(), tb == Transpose::yes ? "ᵀ: " : ": ", why));
  };
  if (a.shape().rank() < 2 || b.shape().rank() < 2) fail("expected at least two axes each");
  const bool flat = b.shape().rank() == 2 && ta == Transpose::no;
  const bool at = ta == Transpose::yes, bt = tb == Transpose::yes;
  Index stack = 1, ar = a.dim(-2);
  const Index ac = a.dim(-1), br = b.dim(-2), bc = b.dim(-1);
  Shape shape = a.shape();
  if (flat) {
    ar = a.rows();
  } else {
    if (a.shape().rank() != b.shape().rank()) fail("different numbers of leading axes");
    for (int i = 0; i + 2 < a.shape().rank(); ++i) {
      if (a.shape()[i] != b.shape()[i]) fail("leading axes differ");
      stack *= a.shape()[i];
    }
    shape[shape.rank() - 2] = at ? ac : ar;
  }
  const Index m = at ? ac : ar, k = at ? ar : ac, n = bt ? br : bc;
  if (k != (bt ? bc : br)) fail("inner sizes differ");
  shape[shape.rank() - 1] = n;
  auto y = BasicTensor<T>::empty(shape);
  for (Index s = 0; s < stack; ++s)
    kernels::gemm(at, bt, m, n, k, T{1}, a.value().data() + s * ar * ac, ac,
                  b.value().data() + s * br * bc, bc, T{0}, y.data() + s * m * n, n);
  return tape.record(
      std::move(y), a.requires_grad() || b.requires_grad(),
      [at, bt, m, n, k, ar, ac, br, bc, stack, ga = a.grad_ref(), gb = b.grad_ref(),
       sa = b.requires_grad() ? a.saved() : BasicSaved<T>{},
       sb = a.requires_grad() ? b.saved() : BasicSaved<T>{}](const BasicTensor<T>& dy) {
        if (ga) {
          auto [da, accumulate] = ga.buffer();
          const T beta = accumulate ? T{1} : T{0};
          for (Index s = 0; s < stack; ++s) {
            const T* g = dy.data() + s * m * n;
            const T* w = sb.get().data() + s * br * bc;
            T* out = da + s * ar * ac;
            if (at)
              kernels::gemm(bt, true, k, m, n, T{1}, w, bc, g, n, beta, out, ac);
            else
              kernels::gemm(false, !bt, m, k, n, T{1}, g, n, w, bc, beta, out, ac);
          }
        }
        if (gb) {
          auto [db, accumulate] = gb.buffer();
          const T beta = accumulate ? T{1} : T{0};
          for (Index s = 0; s < stack; ++s) {
            const T* g = dy.data() + s * m * n;
            const T* w = sa.get().data() + s * ar * ac;
            T* out = db + s * br * bc;
            if (bt)
              kernels::gemm(true, at, n, k, m, T{1}, g, n, w, ac, beta, out, bc);
            else
              kernels::gemm(!at, false, k, n, m, T{1}, w, ac, g, n, beta, out, bc);
          }
        }
      });
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T) \
  template BasicVar<T> matmul(const BasicVar<T>&, const BasicVar<T>&, Transpose, Transpose);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1
