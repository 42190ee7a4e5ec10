#pragma once

#include <utility>

#include "graft/autograd/ops/frozen_matmul.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicVar<T> frozen_matmul(const BasicVar<T>& x, const BasicTensor<T>& matrix, Index rows,
                          Index cols, Transpose transposed) {
  const bool t = transposed == Transpose::yes;
  const Index inner = t ? cols : rows, outer = t ? rows : cols, stride = matrix.cols();
  if (matrix.rank() != 2 || rows > matrix.rows() || cols > stride || x.cols() != inner)
    throw ShapeError(concat("frozen_matmul: ", x.shape().text(), " times [", rows, ", ", cols,
                            t ? "]ᵀ of " : "] of ", matrix.shape().text()));
  auto y = BasicTensor<T>::empty(x.shape().with_last(outer));
  kernels::gemm(false, t, x.rows(), outer, inner, T{1}, x.value().data(), inner, matrix.data(),
                stride, T{0}, y.data(), outer);
  return x.tape().record(
      std::move(y), x.requires_grad(), [=, gx = x.grad_ref()](const BasicTensor<T>& dy) {
        auto [dx, accumulate] = gx.buffer();
        kernels::gemm(false, !t, dy.rows(), inner, outer, T{1}, dy.data(), outer, matrix.data(),
                      stride, accumulate ? T{1} : T{0}, dx, inner);
      });
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T)                                                                  \
  template BasicVar<T> frozen_matmul(const BasicVar<T>&, const BasicTensor<T>&, Index, Index, \
                                     Transpose);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1
