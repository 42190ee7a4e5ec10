#pragma once

#include <utility>

#include "graft/autograd/ops/orthonormal.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicVar<T> orthonormal(const BasicVar<T>& a) {
  if (a.shape().rank() != 2 || a.rows() < a.cols())
    throw ShapeError(concat("orthonormal: shape ", a.shape().text(), ", expected a tall matrix"));
  auto factors = qr(a.value());
  const auto q = factors.q;
  return a.tape().record(
      q, a.requires_grad(),
      [ga = a.grad_ref(), q, r = std::move(factors.r)](const BasicTensor<T>& dq) {
        const Index m = q.rows(), n = q.cols();
        auto s = BasicTensor<T>::empty({n, n});
        kernels::gemm(true, false, n, n, m, T{-1}, q.data(), n, dq.data(), n, T{0}, s.data(), n);
        for (Index i = 0; i < n; ++i)
          for (Index j = 0; j < i; ++j) s(i, j) = s(j, i);
        auto sum = dq.clone();
        kernels::gemm(false, false, m, n, n, T{1}, q.data(), n, s.data(), n, T{1}, sum.data(), n);
        const auto back = inverse(r);
        auto [da, accumulate] = ga.buffer();
        kernels::gemm(false, true, m, n, n, T{1}, sum.data(), n, back.data(), n,
                      accumulate ? T{1} : T{0}, da, n);
      });
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T) template BasicVar<T> orthonormal(const BasicVar<T>&);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1
