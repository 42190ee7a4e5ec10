#pragma once

#include <algorithm>
#include <cmath>

#include "graft/quant/uniform.hpp"
#include "graft/tensor/decompositions.hpp"

/// Quantisation of a matrix by its singular vectors (Metis, arXiv:2509.00404).
namespace graft::inline v0_1::quant {

/// E2M1 in blocks of consecutive entries of a row (the last of a row may be short), scale max |x| /
/// 6 + 1e-9. `uniform`, of the same shape, in [−½, ½): added to the folded code before rounding;
/// empty: round to nearest. x: [rows, columns].
template <std::floating_point T>
BasicTensor<T> fp4_blocks(const BasicTensor<T>& x, Index block,
                          const BasicTensor<T>& uniform = {}) {
  if (block < 1) throw ValueError(concat("fp4_blocks: blocks of ", block));
  if (uniform && uniform.size() != x.size())
    throw ShapeError(
        concat("fp4_blocks: ", uniform.shape().text(), " random numbers for ", x.shape().text()));
  auto y = BasicTensor<T>::empty(x.shape());
  for (Index r = 0; r < x.rows(); ++r)
    for (Index first = 0; first < x.cols(); first += block) {
      const Index start = r * x.cols() + first, end = start + std::min(block, x.cols() - first);
      double largest = 0;
      for (Index i = start; i < end; ++i)
        largest = std::max(largest, std::abs(static_cast<double>(x[i])));
      const double scale = largest / 6 + 1e-9;
      for (Index i = start; i < end; ++i)
        y[i] = static_cast<T>(scale * e2m1_value(e2m1_code(static_cast<double>(x[i]) / scale,
                                                           uniform ? uniform[i] : 0)));
    }
  return y;
}

/// The first singular vectors and values of a matrix and what they leave of it, W = U diag(σ) V +
/// R. The entry of largest magnitude of each column of U is positive. u: [rows, k], s: [k], v: [k,
/// columns].
template <std::floating_point T>
struct SpectralSplit {
  BasicTensor<T> u, s, v, residual;
};
/// k = min(rank, rows, columns). @throws ValueError for a rank below one
template <std::floating_point T>
SpectralSplit<T> spectral_split(const BasicTensor<T>& w, Index rank) {
  if (rank < 1) throw ValueError(concat("spectral_split: rank ", rank));
  const auto all = svd(w);
  const Index k = std::min(rank, all.s.size()), rows = w.rows(), columns = w.cols();
  SpectralSplit<T> part{BasicTensor<T>::empty({rows, k}), BasicTensor<T>::empty({k}),
                        BasicTensor<T>::empty({k, columns}), w.clone()};
  for (Index c = 0; c < k; ++c) {
    T largest = 0;
    for (Index i = 0; i < rows; ++i)
      if (std::abs(all.u(i, c)) > std::abs(largest)) largest = all.u(i, c);
    const T sign = largest < T{0} ? T{-1} : T{1};
    part.s[c] = all.s[c];
    for (Index i = 0; i < rows; ++i) part.u(i, c) = sign * all.u(i, c);
    for (Index j = 0; j < columns; ++j) part.v(c, j) = sign * all.v(j, c);
    for (Index i = 0; i < rows; ++i)
      for (Index j = 0; j < columns; ++j)
        part.residual(i, j) -= part.u(i, c) * part.s[c] * part.v(c, j);
  }
  return part;
}

struct SpectralOptions {
  Index rank = 60;
  Index block = 16;
  /// Amplifies what is small, for gradients: σ̃ = 1.5 σ from the value of this number on and twice
  /// the residual; −1: σ̃ = σ.
  Index schedule_from = -1;
};
/// Q(U) diag(σ̃) Q(V) + γ Q(R) with Q = `fp4_blocks` along each singular vector, γ = 1 (2 with a
/// schedule). Deviations from the paper: an exact decomposition; the residual is what the unscaled
/// values leave.
template <std::floating_point T>
BasicTensor<T> spectral_quantise(const BasicTensor<T>& w, const SpectralOptions& options) {
  const auto part = spectral_split(w, options.rank);
  const Index k = part.s.size(), rows = w.rows(), columns = w.cols();
  auto ut = BasicTensor<T>::empty({k, rows});
  for (Index i = 0; i < rows; ++i)
    for (Index c = 0; c < k; ++c) ut(c, i) = part.u(i, c);
  const auto u = fp4_blocks(ut, options.block), v = fp4_blocks(part.v, options.block);
  const bool scheduled = options.schedule_from >= 0;
  auto result = fp4_blocks(part.residual, options.block);
  for (Index i = 0; scheduled && i < result.size(); ++i) result[i] *= T{2};
  for (Index c = 0; c < k; ++c) {
    const T s = part.s[c] * (scheduled && c >= options.schedule_from ? T{1.5} : T{1});
    for (Index i = 0; i < rows; ++i)
      for (Index j = 0; j < columns; ++j) result(i, j) += u(c, i) * s * v(c, j);
  }
  return result;
}

}  // namespace graft::inline v0_1::quant
