#pragma once

#include "graft/autograd/ops/linalg.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicVar<T> inverse(const BasicVar<T>& a) {
  auto y = inverse(a.value());
  return a.tape().record(y, a.requires_grad(), [ga = a.grad_ref(), y](const BasicTensor<T>& dy) {
    const Index n = y.cols(), stack = y.size() / (n * n);
    auto work = BasicTensor<T>::empty({n, n});
    auto [out, accumulate] = ga.buffer();
    for (Index s = 0; s < stack; ++s) {
      const T* ys = y.data() + s * n * n;
      kernels::gemm(true, false, n, n, n, T{1}, ys, n, dy.data() + s * n * n, n, T{0}, work.data(),
                    n);
      kernels::gemm(false, true, n, n, n, T{-1}, work.data(), n, ys, n, accumulate ? T{1} : T{0},
                    out + s * n * n, n);
    }
  });
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T) template BasicVar<T> inverse(const BasicVar<T>&);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1
