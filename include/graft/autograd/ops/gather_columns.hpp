#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "graft/autograd/ops/common.hpp"

namespace graft::inline v0_1 {

/// Columns of a matrix as rows: a [rank, n], ids -> a[:, ids]ᵀ [ids, rank]. Column `fixed` gets no
/// gradient; −1: all do. Ids are not checked.
template <std::floating_point T>
BasicVar<T> gather_columns(const BasicVar<T>& a, std::span<const std::int32_t> list,
                           Index fixed = -1) {
  std::vector<std::int32_t> ids(list.begin(), list.end());
  const Index r = a.rows(), n = a.cols(), count = std::ssize(ids);
  auto y = BasicTensor<T>::empty({count, r});
  for (Index i = 0; i < count; ++i)
    for (Index k = 0; k < r; ++k) y(i, k) = a.value()(k, ids[static_cast<std::size_t>(i)]);
  return a.tape().record(
      std::move(y), a.requires_grad(),
      [ga = a.grad_ref(), ids = std::move(ids), r, n, count, fixed](const BasicTensor<T>& dy) {
        T* da = ga.accumulator();
        for (Index i = 0; i < count; ++i) {
          const Index id = ids[static_cast<std::size_t>(i)];
          if (id == fixed) continue;
          for (Index k = 0; k < r; ++k) da[k * n + id] += dy(i, k);
        }
      });
}

}  // namespace graft::inline v0_1
