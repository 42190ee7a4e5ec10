#pragma once

#include <utility>

#include "graft/autograd/ops/table_lookup.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicVar<T> table_lookup(const BasicVar<T>& table,
                         std::shared_ptr<const std::vector<std::uint8_t>> codes, Index columns) {
  const Shape shape = table.shape();
  if (shape.rank() != 3 || std::ssize(*codes) != shape[0] * columns)
    throw ShapeError(concat("table_lookup: ", codes->size(), " codes in rows of ", columns,
                            " for a table ", shape.text()));
  const auto each = [rows = shape[0], groups = shape[1], entries = shape[2], columns,
                     codes](auto&& see) {
    for (Index o = 0; o < rows; ++o)
      for (Index j = 0; j < columns; ++j)
        see(o * columns + j, (o * groups + j * groups / columns) * entries +
                                 (*codes)[static_cast<std::size_t>(o * columns + j)]);
  };
  auto w = BasicTensor<T>::empty({shape[0], columns});
  each([&](Index at, Index entry) { w[at] = table.value()[entry]; });
  return table.tape().record(std::move(w), table.requires_grad(),
                             [each, gt = table.grad_ref()](const BasicTensor<T>& dy) {
                               T* sums = gt.accumulator();
                               each([&](Index at, Index entry) { sums[entry] += dy[at]; });
                             });
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T)                            \
  template BasicVar<T> table_lookup(const BasicVar<T>&, \
                                    std::shared_ptr<const std::vector<std::uint8_t>>, Index);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1
