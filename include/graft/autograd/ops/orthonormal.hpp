#pragma once

#include <utility>

#include "graft/autograd/ops/common.hpp"
#include "graft/kernels/gemm.hpp"
#include "graft/tensor/decompositions.hpp"

namespace graft::inline v0_1 {

/// Q of A = Q R, the signs as LAPACK's Householder QR gives them. a: [m, n] with m ≥ n, result [m,
/// n].
///
/// With M = −Qᵀ dQ and S the symmetric matrix with the upper triangle of M: dA = (dQ + Q S) R⁻ᵀ.
/// Source: Liao et al. 2019 (arXiv:1903.09650), the rule for QR.
/// @throws ShapeError if a is no matrix or wider than tall.
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

}  // namespace graft::inline v0_1
