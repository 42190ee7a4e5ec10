#pragma once

#include <utility>

#include "graft/adapters/initial_values.hpp"
#include "graft/tensor/decompositions.hpp"

namespace graft::inline v0_1 {

/// The leading q singular triplets of a [m, n] from a random start: a basis of the range of A Ω
/// with `iterations` power steps, then the SVD in that basis; u: [m, q], s: [q], v: [n, q].
/// Source: Halko, Martinsson, Tropp 2011 (arXiv:0909.4061), algorithms 4.4 and 5.1; the draws of Ω
/// and the steps are those of torch.svd_lowrank, so that the same generator gives the same result
/// up to rounding. @throws ValueError unless 1 ≤ q ≤ min(m, n).
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

}  // namespace graft::inline v0_1
