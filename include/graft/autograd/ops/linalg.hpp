#pragma once

#include <utility>

#include "graft/autograd/ops/common.hpp"
#include "graft/autograd/ops/matmul.hpp"
#include "graft/tensor/decompositions.hpp"

namespace graft::inline v0_1 {

/// Inverse of a square matrix, or of each of a stack of them: dA = -Yᵀ dY Yᵀ. @throws ShapeError
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

}  // namespace graft::inline v0_1
