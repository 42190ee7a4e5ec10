#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "graft/tensor/decompositions.hpp"
#include "graft/tensor/transposed.hpp"

namespace graft::inline v0_1 {

/// Factors of an update ΔW = B A: a [rank, in], b [out, rank].
template <std::floating_point T>
struct UpdateFactors {
  BasicTensor<T> a, b;
  Index rank() const { return a ? a.rows() : 0; }
};

/// How many singular values an approximation keeps.
struct RankChoice {
  Index rank = 0;     ///< so many; 0: see energy
  double energy = 0;  ///< the fewest whose squares have this share of the sum; 0: all that are not
                      ///< rounding
  /// @throws ValueError for a negative rank or a share outside of [0, 1]
  void validate() const {
    if (rank < 0) throw ValueError(concat("rank ", rank, ", expected at least 1"));
    if (!(energy >= 0 && energy <= 1))
      throw ValueError(concat("energy share ", energy, ", expected (0, 1]"));
  }
};

/// Number of values to keep of `s`, in descending order; at least one. `noise`: values up to this
/// are rounding.
template <std::floating_point T>
Index chosen_rank(const BasicTensor<T>& s, const RankChoice& choice, double noise = 0) {
  choice.validate();
  if (choice.rank > 0) return choice.rank;
  double total = 0, sum = 0;
  for (const T v : s) total += static_cast<double>(v) * static_cast<double>(v);
  if (choice.energy > 0) {
    for (Index k = 0; k < s.size(); ++k) {
      sum += static_cast<double>(s[k]) * static_cast<double>(s[k]);
      if (sum >= choice.energy * total) return k + 1;
    }
    return std::max<Index>(s.size(), 1);
  }
  Index count = 0;
  while (count < s.size() && static_cast<double>(s[count]) > noise) ++count;
  return std::max<Index>(count, 1);
}

namespace detail {

/// a b.
inline BasicTensor<double> matrix_product(const BasicTensor<double>& a,
                                          const BasicTensor<double>& b) {
  auto c = BasicTensor<double>::zeros({a.rows(), b.cols()});
  for (Index i = 0; i < a.rows(); ++i)
    for (Index k = 0; k < a.cols(); ++k) {
      const double v = a(i, k);
      if (v == 0) continue;
      for (Index j = 0; j < b.cols(); ++j) c(i, j) += v * b(k, j);
    }
  return c;
}

}  // namespace detail

/// B A.
template <std::floating_point T>
BasicTensor<T> product_of(const UpdateFactors<T>& f, double factor = 1) {
  auto p = detail::matrix_product(f.b.template cast<double>(), f.a.template cast<double>());
  if (factor != 1)
    for (double& v : p) v *= factor;
  return p.template cast<T>();
}

/// The best approximation of a matrix [out, in] of the chosen rank: B = U S, A = Vᵀ, cut off; a
/// larger rank than the matrix has is filled up with zeros. `spectrum` receives all singular
/// values.
template <std::floating_point T>
UpdateFactors<T> truncated_factors(const BasicTensor<T>& delta, const RankChoice& choice,
                                   double noise = 0, BasicTensor<double>* spectrum = nullptr) {
  const auto f = svd(delta.template cast<double>());
  if (spectrum != nullptr) *spectrum = f.s;
  if (noise == 0 && f.s.size() > 0)
    noise = static_cast<double>(std::numeric_limits<T>::epsilon()) *
            static_cast<double>(std::max(delta.rows(), delta.cols())) * f.s[0];
  const Index rank = chosen_rank(f.s, choice, noise);
  UpdateFactors<T> result{BasicTensor<T>::zeros({rank, delta.cols()}),
                          BasicTensor<T>::zeros({delta.rows(), rank})};
  for (Index k = 0; k < std::min(rank, f.s.size()); ++k) {
    for (Index j = 0; j < delta.cols(); ++j) result.a(k, j) = static_cast<T>(f.v(j, k));
    for (Index i = 0; i < delta.rows(); ++i) result.b(i, k) = static_cast<T>(f.u(i, k) * f.s[k]);
  }
  return result;
}

/// The same for a matrix given as B A, by the QR factors of both: the whole matrix is never formed
/// if the rank is smaller than its sides.
template <std::floating_point T>
UpdateFactors<T> truncated_factors(const UpdateFactors<T>& f, const RankChoice& choice) {
  if (f.rank() >= std::min(f.a.cols(), f.b.rows())) return truncated_factors(product_of(f), choice);
  const auto left = qr(f.b.template cast<double>());
  const auto right = qr(transposed(f.a.template cast<double>()));
  const auto core = truncated_factors(detail::matrix_product(left.r, transposed(right.r)), choice);
  return {detail::matrix_product(core.a, transposed(right.q)).template cast<T>(),
          detail::matrix_product(left.q, core.b).template cast<T>()};
}

/// Σ w_t B_t A_t exactly: the ranks side by side, the weights in B.
template <std::floating_point T>
UpdateFactors<T> concatenated_factors(const std::vector<UpdateFactors<T>>& list,
                                      const std::vector<double>& weights) {
  if (list.empty() || list.size() != weights.size())
    throw ValueError(
        concat("concatenated_factors: ", weights.size(), " weights for ", list.size(), " factors"));
  const Index in = list[0].a.cols(), out = list[0].b.rows();
  Index rank = 0;
  for (const auto& f : list) {
    if (f.a.cols() != in || f.b.rows() != out || f.a.rows() != f.b.cols())
      throw ShapeError(concat("concatenated_factors: A ", f.a.shape().text(), " and B ",
                              f.b.shape().text(), " beside others of ", out, " x ", in));
    rank += f.rank();
  }
  UpdateFactors<T> result{BasicTensor<T>::empty({rank, in}), BasicTensor<T>::empty({out, rank})};
  Index row = 0;
  for (std::size_t t = 0; t < list.size(); ++t)
    for (Index k = 0; k < list[t].rank(); ++k, ++row) {
      for (Index j = 0; j < in; ++j) result.a(row, j) = list[t].a(k, j);
      for (Index o = 0; o < out; ++o)
        result.b(o, row) = static_cast<T>(weights[t] * static_cast<double>(list[t].b(o, k)));
    }
  return result;
}

}  // namespace graft::inline v0_1
