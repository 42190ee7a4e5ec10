#pragma once

#include <limits>

#include "graft/kernels/gemm.hpp"
#include "graft/tensor/decompositions.hpp"

namespace graft::inline v0_1::detail {

/// Pseudo-inverse of F Fᵀ + δ I for F [r, n], or of Fᵀ F + δ I with `columns`: singular values
/// below the rounding error of the largest one count as zero.
template <std::floating_point T>
BasicTensor<T> damped_gram_inverse(const BasicTensor<T>& f, double delta, bool columns) {
  const Index r = columns ? f.cols() : f.rows(), n = columns ? f.rows() : f.cols();
  auto gram = BasicTensor<T>::empty({r, r});
  kernels::gemm(columns, !columns, r, r, n, T{1}, f.data(), f.cols(), f.data(), f.cols(), T{0},
                gram.data(), r);
  for (Index i = 0; i < r; ++i) gram(i, i) += static_cast<T>(delta);
  const auto d = svd(gram);
  const T least = static_cast<T>(r) * std::numeric_limits<T>::epsilon() * d.s[0];
  auto inverse = BasicTensor<T>::zeros({r, r});
  for (Index k = 0; k < r && d.s[k] > least; ++k)
    for (Index i = 0; i < r; ++i)
      for (Index j = 0; j < r; ++j) inverse(i, j) += d.v(i, k) * d.u(j, k) / d.s[k];
  return inverse;
}

}  // namespace graft::inline v0_1::detail
