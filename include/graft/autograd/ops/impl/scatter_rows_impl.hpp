#pragma once

#include <utility>

#include "graft/autograd/ops/scatter_rows.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicVar<T> scatter_rows(const BasicVar<T>& x, std::vector<Index> index, Index rows) {
  if (x.shape().rank() < 1 || std::ssize(index) != x.shape()[0])
    throw ShapeError(
        concat("scatter_rows: ", index.size(), " positions for rows of ", x.shape().text()));
  const Index n = index.empty() ? 0 : x.size() / x.shape()[0];
  Shape shape = x.shape();
  shape[0] = rows;
  auto y = BasicTensor<T>::zeros(shape);
  for (std::size_t i = 0; i < index.size(); ++i) {
    if (index[i] < 0 || index[i] >= rows)
      throw ValueError(concat("scatter_rows: row ", index[i], " of ", rows));
    T* to = y.data() + index[i] * n;
    kernels::add(to, x.value().data() + static_cast<Index>(i) * n, to, n);
  }
  return x.tape().record(
      std::move(y), x.requires_grad(),
      [gx = x.grad_ref(), n, index = std::move(index)](const BasicTensor<T>& dy) {
        auto dx = BasicTensor<T>::empty(gx.shape());
        for (std::size_t i = 0; i < index.size(); ++i)
          std::copy_n(dy.data() + index[i] * n, n, dx.data() + static_cast<Index>(i) * n);
        gx.add(dx);
      });
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T) \
  template BasicVar<T> scatter_rows(const BasicVar<T>&, std::vector<Index>, Index);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1
