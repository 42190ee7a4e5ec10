#pragma once

#include "graft/adapters/initial_values.hpp"

namespace graft::inline v0_1::detail {

template <class T>
BasicTensor<T> kaiming_uniform_tensor(TorchGenerator& generator, const Shape& shape, Index fan_in,
                                      double slope) {
  auto t = BasicTensor<T>::empty(shape);
  const double bound = kaiming_uniform_bound(fan_in, slope);
  generator.uniform(t.data(), t.size(), -bound, bound);
  return t;
}

template <class T>
BasicTensor<T> kaiming_uniform_tensor(InitContext<T>& context, const Shape& shape, Index fan_in,
                                      double slope) {
  if (context.loading) return BasicTensor<T>::zeros(shape);
  return kaiming_uniform_tensor<T>(context.generator, shape, fan_in, slope);
}

template <class T>
BasicTensor<T> normal_tensor(TorchGenerator& generator, const Shape& shape, double std,
                             double mean) {
  auto t = BasicTensor<T>::empty(shape);
  generator.normal(t.data(), t.size(), mean, std);
  return t;
}

template <class T>
BasicTensor<T> product(const BasicTensor<T>& a, const BasicTensor<T>& b, T alpha, bool ta,
                       bool tb) {
  const Index m = ta ? a.cols() : a.rows(), k = ta ? a.rows() : a.cols(),
              n = tb ? b.rows() : b.cols();
  auto c = BasicTensor<T>::empty({m, n});
  kernels::gemm(ta, tb, m, n, k, alpha, a.data(), a.cols(), b.data(), b.cols(), T{0}, c.data(), n);
  return c;
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T)                                                                    \
  template BasicTensor<T> kaiming_uniform_tensor(TorchGenerator&, const Shape&, Index, double); \
  template BasicTensor<T> kaiming_uniform_tensor(InitContext<T>&, const Shape&, Index, double); \
  template BasicTensor<T> normal_tensor(TorchGenerator&, const Shape&, double, double);         \
  template BasicTensor<T> product(const BasicTensor<T>&, const BasicTensor<T>&, T, bool, bool);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1::detail
