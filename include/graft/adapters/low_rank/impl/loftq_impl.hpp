#pragma once

#include <cmath>

#include "graft/adapters/low_rank/loftq.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicTensor<T> loftq_factors(const BasicTensor<T>& w, Index iterations, T scaling,
                             const std::function<BasicTensor<T>(const BasicTensor<T>&)>& quantise,
                             BasicTensor<T>& a, BasicTensor<T>& b,
                             const std::function<void(const BasicTensor<T>&)>& step) {
  const Index in = w.cols(), out = w.rows(), r = a.rows();
  a.fill(0);
  b.fill(0);
  BasicTensor<T> q;
  for (Index t = 0; t < iterations; ++t) {
    auto rest = w.clone();
    kernels::gemm(false, false, out, in, r, -scaling, b.data(), r, a.data(), in, T{1}, rest.data(),
                  in);
    q = quantise(rest);
    for (Index i = 0; i < w.size(); ++i) rest[i] = w[i] - q[i];
    const auto d = svd(rest);
    for (Index k = 0; k < r; ++k) {
      const T root = std::sqrt(d.s[k] / scaling);
      for (Index i = 0; i < in; ++i) a(k, i) = root * d.v(i, k);
      for (Index o = 0; o < out; ++o) b(o, k) = root * d.u(o, k);
    }
    if (step) step(q);
  }
  return q;
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T)                                                        \
  template BasicTensor<T> loftq_factors(                                            \
      const BasicTensor<T>&, Index, T,                                              \
      const std::function<BasicTensor<T>(const BasicTensor<T>&)>&, BasicTensor<T>&, \
      BasicTensor<T>&, const std::function<void(const BasicTensor<T>&)>&);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

GRAFT_KERNEL void LoftQConfig::validate() const {
  if (bits != 4 && bits != 8)
    throw ValueError(concat("LoftQ: loftq_bits ", bits, ", expected 4 or 8"));
  if (iterations < 1)
    throw ValueError(concat("LoftQ: loftq_iter ", iterations, ", expected at least 1"));
}

}  // namespace graft::inline v0_1
