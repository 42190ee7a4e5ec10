#pragma once

#include <utility>

#include "graft/adapters/randomized_svd.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
SingularValues<T> randomized_svd(const BasicTensor<T>& matrix, Index q, int iterations,
                                 TorchGenerator& generator) {
  const Index m = matrix.rows(), n = matrix.cols();
  if (q < 1 || q > std::min(m, n))
    throw ValueError(concat("randomized_svd: rank ", q, " of ", matrix.shape().text()));
  const bool wide = m < n;  // then everything happens on the transpose
  const auto times = [&](const BasicTensor<T>& x, bool transposed) {
    return detail::product(matrix, x, T{1}, transposed != wide, false);
  };
  auto basis = qr(times(detail::normal_tensor<T>(generator, {wide ? m : n, q}, 1), false)).q;
  for (int i = 0; i < iterations; ++i) {
    basis = qr(times(basis, true)).q;
    basis = qr(times(basis, false)).q;
  }
  // Bᵀ = Aᵀ Q, tall: its SVD holds the wanted one with the sides swapped.
  auto d = svd(times(basis, true));
  auto u = detail::product(basis, d.v), v = std::move(d.u);
  if (wide) std::swap(u, v);
  return {std::move(u), std::move(d.s), std::move(v)};
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T) \
  template SingularValues<T> randomized_svd(const BasicTensor<T>&, Index, int, TorchGenerator&);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1
