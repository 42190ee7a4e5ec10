#pragma once

#include <algorithm>
#include <cmath>

#include "graft/adapters/root.hpp"
#include "graft/tensor/decompositions.hpp"

/// What methods in the basis of singular vectors share.
namespace graft::inline v0_1::detail {

/// The thin SVD of a weight with definite signs: in every column of U the entry of largest
/// magnitude is positive, and V's column follows.
template <std::floating_point T>
SingularValues<T> signed_svd(const BasicTensor<T>& weight) {
  auto d = svd(weight);
  const Index rows = d.u.rows(), cols = d.v.rows(), p = d.s.size();
  for (Index j = 0; j < p; ++j) {
    Index largest = 0;
    for (Index i = 1; i < rows; ++i)
      if (std::abs(d.u(i, j)) > std::abs(d.u(largest, j))) largest = i;
    if (d.u(largest, j) >= T{0}) continue;
    for (Index i = 0; i < rows; ++i) d.u(i, j) = -d.u(i, j);
    for (Index i = 0; i < cols; ++i) d.v(i, j) = -d.v(i, j);
  }
  return d;
}

/// The first `count` columns.
template <std::floating_point T>
BasicTensor<T> leading_columns(const BasicTensor<T>& a, Index count) {
  auto b = BasicTensor<T>::empty({a.rows(), count});
  for (Index i = 0; i < a.rows(); ++i) std::copy_n(a.data() + i * a.cols(), count, &b(i, 0));
  return b;
}
/// The first `count` elements of a vector.
template <std::floating_point T>
BasicTensor<T> leading_elements(const BasicTensor<T>& a, Index count) {
  auto b = BasicTensor<T>::empty({count});
  std::copy_n(a.data(), count, b.data());
  return b;
}

/// The smallest r whose first r values hold this share of Σ σ². `sigma` falls.
template <std::floating_point T>
Index rank_by_energy(const BasicTensor<T>& sigma, double energy) {
  double total = 0, part = 0;
  for (const T s : sigma) total += static_cast<double>(s) * static_cast<double>(s);
  for (Index r = 0; r < sigma.size(); ++r) {
    part += static_cast<double>(sigma[r]) * static_cast<double>(sigma[r]);
    if (part >= energy * total) return r + 1;
  }
  return sigma.size();
}

/// x W'ᵀ + b of a method that takes the place of the frozen weight, given y = x W'ᵀ. With other
/// adapters below, these see x and the difference to the frozen layer is added.
template <Linear L>
BasicVar<ScalarOf<L>> in_place_of_weight(const L& base, const BasicVar<ScalarOf<L>>& x,
                                         const BasicVar<ScalarOf<L>>& y) {
  const auto& root = root_of(base);
  const auto bias = bias_of(root);
  const auto own = bias ? add(y, x.tape().constant(bias)) : y;
  if (!has_adapters_below(base)) return own;
  return add(sub(linear(base, x), linear(root, x)), own);
}

}  // namespace graft::inline v0_1::detail
