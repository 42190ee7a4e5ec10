#pragma once

#include <utility>

#include "graft/autograd/ops/take_shared.hpp"

namespace graft::inline v0_1 {

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

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T)        \
  template BasicVar<T> take_shared( \
      const BasicVar<T>&, std::shared_ptr<const std::vector<std::int32_t>>, const Shape&);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1
