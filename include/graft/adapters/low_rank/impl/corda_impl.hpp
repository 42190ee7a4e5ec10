#pragma once

#include <algorithm>
#include <cmath>

#include "graft/adapters/low_rank/corda.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
void corda_factors(const BasicTensor<T>& w, const BasicTensor<T>& covariance,
                   const CordaConfig& config, T scaling, BasicTensor<T>& a, BasicTensor<T>& b) {
  const Index in = w.cols(), out = w.rows(), r = a.rows();
  T diagonal = 0;
  for (Index i = 0; i < in; ++i) diagonal += covariance(i, i) / static_cast<T>(in);
  BasicTensor<T> fixed, inverted;
  for (T damp = static_cast<T>(0.01);; damp *= 2) {
    fixed = covariance.clone();
    for (Index i = 0; i < in; ++i) fixed(i, i) += damp * diagonal;
    inverted = inverse(fixed);
    const auto one = detail::product(fixed, inverted);
    double error = 0;
    for (Index i = 0; i < in; ++i)
      for (Index j = 0; j < in; ++j) {
        const double e = static_cast<double>(one(i, j)) - (i == j ? 1 : 0);
        error += e * e;
      }
    if (std::sqrt(error) < 0.05) break;
    if (!(damp < static_cast<T>(1e6))) throw ValueError("CorDA: a covariance has no inverse");
  }
  const auto d = svd(detail::product(w, fixed));
  const Index first = config.method == "ipm" ? 0 : d.s.size() - r;
  auto v = BasicTensor<T>::empty({r, in});
  for (Index k = 0; k < r; ++k) {
    const T root = std::sqrt(d.s[first + k] / scaling);
    for (Index i = 0; i < in; ++i) v(k, i) = root * d.v(i, first + k);
    for (Index o = 0; o < out; ++o) b(o, k) = root * d.u(o, first + k);
  }
  a = detail::product(v, inverted);
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T)                                                                       \
  template void corda_factors(const BasicTensor<T>&, const BasicTensor<T>&, const CordaConfig&, T, \
                              BasicTensor<T>&, BasicTensor<T>&);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

GRAFT_KERNEL void CordaConfig::validate() const {
  if (method != "ipm" && method != "kpm")
    throw ValueError(concat("CorDA: corda_method '", method, "', expected ipm or kpm"));
  if (normalisation != "largest" && normalisation != "none")
    throw ValueError(
        concat("CorDA: normalisation '", normalisation, "', expected largest or none"));
}

template <std::floating_point T>
void CovarianceMean<T>::add(const BasicTensor<T>& x) {
  const Index in = x.cols(), n = x.rows();
  if (!sum_) sum_ = BasicTensor<T>::zeros({in, in});
  const T top = normalise_ ? std::abs(*std::max_element(x.begin(), x.end())) : T{1};
  if (!std::isfinite(top) || top == 0)
    throw ValueError("CorDA: the inputs of a layer are not finite, or have no positive element");
  kernels::gemm(true, false, in, in, n, 1 / (top * top), x.data(), in, x.data(), in, T{1},
                sum_.data(), in);
  ++batches_;
}

template <std::floating_point T>
BasicTensor<T> CovarianceMean<T>::value() const {
  auto mean = sum_.clone();
  for (T& v : mean) {
    v /= static_cast<T>(batches_);
    if (!std::isfinite(v)) throw ValueError("CorDA: the inputs of a layer are not finite");
  }
  return mean;
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
template class CovarianceMean<float>;
template class CovarianceMean<double>;
#endif

}  // namespace graft::inline v0_1
