#pragma once

#include <cmath>

#include "graft/adapters/adapter.hpp"

/// Random tensors and small products that methods make their first values from.
namespace graft::inline v0_1 {

namespace detail {

template <class T>
BasicTensor<T> kaiming_uniform_tensor(TorchGenerator& generator, const Shape& shape, Index fan_in,
                                      double slope = std::sqrt(5.0)) {
  auto t = BasicTensor<T>::empty(shape);
  const double bound = kaiming_uniform_bound(fan_in, slope);
  generator.uniform(t.data(), t.size(), -bound, bound);
  return t;
}
/// The same from the generator of `context`; zeros, and nothing drawn, while loading.
template <class T>
BasicTensor<T> kaiming_uniform_tensor(InitContext<T>& context, const Shape& shape, Index fan_in,
                                      double slope = std::sqrt(5.0)) {
  if (context.loading) return BasicTensor<T>::zeros(shape);
  return kaiming_uniform_tensor<T>(context.generator, shape, fan_in, slope);
}
template <class T>
BasicTensor<T> normal_tensor(TorchGenerator& generator, const Shape& shape, double std,
                             double mean = 0) {
  auto t = BasicTensor<T>::empty(shape);
  generator.normal(t.data(), t.size(), mean, std);
  return t;
}
template <class T>
BasicTensor<T> product(const BasicTensor<T>& a, const BasicTensor<T>& b, T alpha = 1,
                       bool ta = false, bool tb = false) {
  const Index m = ta ? a.cols() : a.rows(), k = ta ? a.rows() : a.cols(),
              n = tb ? b.rows() : b.cols();
  auto c = BasicTensor<T>::empty({m, n});
  kernels::gemm(ta, tb, m, n, k, alpha, a.data(), a.cols(), b.data(), b.cols(), T{0}, c.data(), n);
  return c;
}

}  // namespace detail

}  // namespace graft::inline v0_1
