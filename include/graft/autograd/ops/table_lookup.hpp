#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "graft/autograd/ops/common.hpp"

namespace graft::inline v0_1 {

/// W[o, j] = table[o, ⌊j groups / columns⌋, codes[o, j]], one byte a code. table: [rows, groups,
/// entries]; result: [rows, columns]; the gradient of an entry is the sum over the places that read
/// it. The codes are not checked against the number of entries. @throws ShapeError for a table of
/// another rank or another number of codes
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

}  // namespace graft::inline v0_1
