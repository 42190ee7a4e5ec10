#pragma once

#include <utility>
#include <vector>

#include "graft/autograd/ops/householder_rows.hpp"

namespace graft::inline v0_1::detail {

/// a H with H = I − 2 v vᵀ / ‖v‖², in place; a: [rows, d]. `low` receives a v.
template <class T>
void reflect_rows(T* a, const T* v, double square, Index rows, Index d, std::vector<double>& low) {
  low.assign(static_cast<std::size_t>(rows), 0.0);
  for (Index i = 0; i < rows; ++i) {
    double dot = 0;
    for (Index j = 0; j < d; ++j)
      dot += static_cast<double>(a[i * d + j]) * static_cast<double>(v[j]);
    low[static_cast<std::size_t>(i)] = dot;
    const double factor = 2 * dot / square;
    for (Index j = 0; j < d; ++j)
      a[i * d + j] =
          static_cast<T>(static_cast<double>(a[i * d + j]) - factor * static_cast<double>(v[j]));
  }
}

template <class T>
double square_of(const T* v, Index d) {
  double sum = 0;
  for (Index j = 0; j < d; ++j) sum += static_cast<double>(v[j]) * static_cast<double>(v[j]);
  return sum;
}

}  // namespace graft::inline v0_1::detail

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicVar<T> householder_rows(const BasicVar<T>& v) {
  if (v.shape().rank() != 2 || v.rows() > v.cols())
    throw ShapeError(concat("householder_rows: shape ", v.shape().text(),
                            ", expected no more rows than columns"));
  const Index r = v.rows(), d = v.cols();
  std::vector<double> square, low;
  for (Index i = 0; i < r; ++i) {
    square.push_back(detail::square_of(v.value().data() + i * d, d));
    if (!(square.back() > 0)) throw ValueError(concat("householder_rows: vector ", i, " is zero"));
  }
  auto rows = BasicTensor<T>::zeros({r, d});
  for (Index i = 0; i < r; ++i) rows(i, i) = 1;
  for (Index i = 0; i < r; ++i)
    detail::reflect_rows(rows.data(), v.value().data() + i * d, square[static_cast<std::size_t>(i)],
                         r, d, low);
  return v.tape().record(
      rows, v.requires_grad(),
      [gv = v.grad_ref(), kept = v.saved(), rows, square = std::move(square), r,
       d](const BasicTensor<T>& dy) {
        const auto vectors = kept.get();
        auto p = rows.clone(), g = dy.clone();
        auto dv = BasicTensor<T>::empty({r, d});
        std::vector<double> u, w;
        for (Index i = r - 1; i >= 0; --i) {
          const T* at = vectors.data() + i * d;
          const double c = square[static_cast<std::size_t>(i)];
          // A reflection is its own inverse: after it, (P H) v = −P v.
          const auto after = g.clone();
          detail::reflect_rows(p.data(), at, c, r, d, u);
          for (double& value : u) value = -value;
          detail::reflect_rows(g.data(), at, c, r, d, w);
          double both = 0;
          for (std::size_t k = 0; k < u.size(); ++k) both += u[k] * w[k];
          for (Index j = 0; j < d; ++j) {
            double sum = 0;
            for (Index k = 0; k < r; ++k)
              sum += static_cast<double>(p(k, j)) * w[static_cast<std::size_t>(k)] +
                     static_cast<double>(after(k, j)) * u[static_cast<std::size_t>(k)];
            dv(i, j) =
                static_cast<T>(4 * both * static_cast<double>(at[j]) / (c * c) - 2 * sum / c);
          }
        }
        gv.add(dv);
      });
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T) template BasicVar<T> householder_rows(const BasicVar<T>&);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1
