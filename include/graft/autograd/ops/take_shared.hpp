#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "graft/autograd/ops/common.hpp"

namespace graft::inline v0_1 {

/// Elements of a flat array by number: y[i] = x.flat[index[i]], with an index that many calls share
/// and none copies. Gradients of repeated elements add. Numbers are not checked.
/// @throws ShapeError if the index does not have the elements of `shape`.
template <std::floating_point T>
BasicVar<T> take_shared(const BasicVar<T>& x,
                        std::shared_ptr<const std::vector<std::int32_t>> index,
                        const Shape& shape) {
  if (static_cast<Index>(index->size()) != shape.elements())
    throw ShapeError(concat("take_shared: ", index->size(), " numbers for shape ", shape.text()));
  auto y = BasicTensor<T>::empty(shape);
  const std::int32_t* at = index->data();
  for (Index i = 0; i < y.size(); ++i) y[i] = x.value()[at[i]];
  return x.tape().record(std::move(y), x.requires_grad(),
                         [gx = x.grad_ref(), index = std::move(index)](const BasicTensor<T>& dy) {
                           T* dx = gx.accumulator();
                           const std::int32_t* to = index->data();
                           for (Index i = 0; i < dy.size(); ++i) dx[to[i]] += dy[i];
                         });
}

}  // namespace graft::inline v0_1
