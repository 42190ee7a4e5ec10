#pragma once

#include <utility>

#include "graft/autograd/ops/row_products.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicVar<T> row_products(const BasicVar<T>& a, const BasicVar<T>& b) {
  auto& tape = detail::common_tape("row_products", a, b);
  if (a.shape().rank() != 2 || b.shape().rank() != 2 || a.cols() != b.cols())
    throw ShapeError(concat("row_products: shapes ", a.shape().text(), " and ", b.shape().text()));
  const Index m = a.rows(), k = b.rows(), n = a.cols();
  const auto va = a.value(), vb = b.value();
  auto y = BasicTensor<T>::empty({m * k, n});
  for (Index p = 0; p < m; ++p)
    for (Index q = 0; q < k; ++q)
      kernels::mul(va.data() + p * n, vb.data() + q * n, y.data() + (p * k + q) * n, n);
  return tape.record(std::move(y), a.requires_grad() || b.requires_grad(),
                     [=, ga = a.grad_ref(), gb = b.grad_ref()](const BasicTensor<T>& dy) {
                       auto product = BasicTensor<T>::empty({n});
                       T* da = ga ? ga.accumulator() : nullptr;
                       T* db = gb ? gb.accumulator() : nullptr;
                       for (Index p = 0; p < m; ++p)
                         for (Index q = 0; q < k; ++q) {
                           const T* g = dy.data() + (p * k + q) * n;
                           if (da != nullptr) {
                             kernels::mul(g, vb.data() + q * n, product.data(), n);
                             kernels::add(da + p * n, product.data(), da + p * n, n);
                           }
                           if (db != nullptr) {
                             kernels::mul(g, va.data() + p * n, product.data(), n);
                             kernels::add(db + q * n, product.data(), db + q * n, n);
                           }
                         }
                     });
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T) \
  template BasicVar<T> row_products(const BasicVar<T>&, const BasicVar<T>&);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1
