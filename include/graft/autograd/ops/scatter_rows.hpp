#pragma once

#include <utility>
#include <vector>

#include "graft/autograd/ops/common.hpp"

namespace graft::inline v0_1 {

/// Rows that are zero but for y[index[i]] += x[i], `rows` of them. x: [index, ...]; an index may
/// occur several times. @throws ShapeError for another number of indices, ValueError for one out of
/// range
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

}  // namespace graft::inline v0_1
