#pragma once

#include "graft/autograd/ops/broadcast.hpp"

namespace graft::inline v0_1 {

GRAFT_KERNEL Shape broadcast_shape(const char* operation, const Shape& a, const Shape& b) {
  Shape result = a.rank() >= b.rank() ? a : b;
  const Shape& small = a.rank() >= b.rank() ? b : a;
  for (int i = 1; i <= small.rank(); ++i) {
    Index& out = result[result.rank() - i];
    const Index size = small[small.rank() - i];
    if (out == size || size == 1) continue;
    if (out != 1)
      throw ShapeError(
          concat(operation, ": shapes ", a.text(), " and ", b.text(), " do not broadcast"));
    out = size;
  }
  return result;
}

}  // namespace graft::inline v0_1

namespace graft::inline v0_1::detail {

GRAFT_KERNEL bool repeats(const Shape& whole, const Shape& part) {
  if (part.rank() > whole.rank()) return false;
  int axis = 0;
  while (axis < part.rank() && part[axis] == 1) ++axis;
  for (; axis < part.rank(); ++axis)
    if (part[axis] != whole[whole.rank() - part.rank() + axis]) return false;
  return true;
}

template <class T>
BasicTensor<T> reduce_to(const BasicTensor<T>& g, const Shape& shape) {
  if (g.shape() == shape) return g;
  if (g.size() == shape.elements()) return g.reshape(shape);
  BasicTensor<T> sum = BasicTensor<T>::zeros(shape);
  const Index n = sum.size();
  if (n > 1 && repeats(g.shape(), shape)) {
    for (Index r = 0; r < g.size() / n; ++r)
      kernels::add(sum.data(), g.data() + r * n, sum.data(), n);
    return sum;
  }
  for_each_broadcast(g.shape(), shape, [&](Index i, Index j) { sum[j] += g[i]; });
  return sum;
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T) template BasicTensor<T> reduce_to(const BasicTensor<T>&, const Shape&);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1::detail
