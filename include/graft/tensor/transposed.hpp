#pragma once

#include <concepts>
#include <utility>

#include "graft/kernels/sparse.hpp"
#include "graft/tensor/tensor.hpp"

namespace graft::inline v0_1 {

/// A copy with the last two axes swapped. @throws ShapeError for fewer than two axes
template <std::floating_point T>
BasicTensor<T> transposed(const BasicTensor<T>& x) {
  Shape shape = x.shape();
  const int last = shape.rank() - 1;
  if (last < 1)
    throw ShapeError(concat("transposed: shape ", shape.text(), ", expected two axes or more"));
  const Index rows = shape[last - 1], cols = shape[last];
  std::swap(shape[last - 1], shape[last]);
  auto y = BasicTensor<T>::empty(shape);
  for (Index i = 0; i < x.size(); i += rows * cols)
    kernels::transpose(x.data() + i, rows, cols, cols, y.data() + i, rows);
  return y;
}

}  // namespace graft::inline v0_1
