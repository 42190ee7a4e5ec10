#pragma once

#include <span>
#include <utility>
#include <vector>

#include "graft/autograd/ops/broadcast.hpp"
#include "graft/autograd/ops/common.hpp"
#include "graft/kernels/sparse.hpp"
#include "graft/tensor/transposed.hpp"

namespace graft::inline v0_1 {

/// The same elements under another shape.
template <std::floating_point T>
BasicVar<T> reshape(const BasicVar<T>& x, const Shape& shape);

/// Axis i of the result is axis order[i] of x.
template <std::floating_point T>
BasicVar<T> permute(const BasicVar<T>& x, std::initializer_list<int> order);

/// The last two axes swapped.
template <std::floating_point T>
BasicVar<T> transpose(const BasicVar<T>& x);

/// Elements [first, first + count) along an axis (negative axes count from the end).
template <std::floating_point T>
BasicVar<T> slice(const BasicVar<T>& x, int axis, Index first, Index count);

/// The arrays one after the other along an axis.
template <std::floating_point T>
BasicVar<T> concat_along(int axis, const std::vector<BasicVar<T>>& parts);

/// x repeated to `shape` by the rules of broadcasting.
template <std::floating_point T>
BasicVar<T> broadcast_to(const BasicVar<T>& x, const Shape& shape);

/// Rows of a matrix (all axes after the first form the row) by number: y[i] = x[index[i]].
/// Gradients of repeated rows add; that of row `fixed` is left out.
template <std::floating_point T, class Integer>
BasicVar<T> gather_rows(const BasicVar<T>& x, std::vector<Integer> index, Index fixed = -1) {
  if (x.shape().rank() == 0) throw ShapeError("gather_rows: a scalar has no rows");
  const Index n = x.shape()[0] == 0 ? 0 : x.size() / x.shape()[0];
  for (Integer i : index)
    if (i < 0 || static_cast<Index>(i) >= x.shape()[0])
      throw ValueError(concat("gather_rows: row ", i, " of ", x.shape()[0]));
  Shape shape = x.shape();
  shape[0] = static_cast<Index>(index.size());
  auto y = BasicTensor<T>::empty(shape);
  for (std::size_t i = 0; i < index.size(); ++i)
    std::copy_n(x.value().data() + static_cast<Index>(index[i]) * n, n,
                y.data() + static_cast<Index>(i) * n);
  return x.tape().record(
      std::move(y), x.requires_grad(),
      [gx = x.grad_ref(), n, index = std::move(index), fixed](const BasicTensor<T>& dy) {
        T* dx = gx.accumulator();
        for (std::size_t i = 0; i < index.size(); ++i) {
          if (static_cast<Index>(index[i]) == fixed) continue;
          T* to = dx + static_cast<Index>(index[i]) * n;
          kernels::add(to, dy.data() + static_cast<Index>(i) * n, to, n);
        }
      });
}

/// Elements of a flat array by number: y[i] = x.flat[index[i]], reshaped to `shape`. Gradients of
/// repeated elements add.
template <std::floating_point T, class Integer>
BasicVar<T> take(const BasicVar<T>& x, std::vector<Integer> index, const Shape& shape) {
  return reshape(gather_rows(reshape(x, {x.size(), 1}), std::move(index)), shape);
}

/// An array of `shape` that is zero but for y.flat[index[i]] += x.flat[i].
template <std::floating_point T, class Integer>
BasicVar<T> scatter(const BasicVar<T>& x, std::vector<Integer> index, const Shape& shape) {
  if (static_cast<Index>(index.size()) != x.size())
    throw ShapeError(concat("scatter: ", index.size(), " positions for ", x.size(), " values"));
  auto y = BasicTensor<T>::zeros(shape);
  for (std::size_t i = 0; i < index.size(); ++i) {
    if (index[i] < 0 || static_cast<Index>(index[i]) >= y.size())
      throw ValueError(concat("scatter: position ", index[i], " of ", y.size()));
    y[static_cast<Index>(index[i])] += x.value()[static_cast<Index>(i)];
  }
  return x.tape().record(std::move(y), x.requires_grad(),
                         [gx = x.grad_ref(), index = std::move(index)](const BasicTensor<T>& dy) {
                           auto dx = BasicTensor<T>::empty(gx.shape());
                           for (std::size_t i = 0; i < index.size(); ++i)
                             dx[static_cast<Index>(i)] = dy[static_cast<Index>(index[i])];
                           gx.add(dx);
                         });
}

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/autograd/ops/impl/shape_impl.hpp"
#endif
