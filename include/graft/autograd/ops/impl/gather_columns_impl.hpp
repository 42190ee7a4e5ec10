#pragma once

#include <utility>
#include <vector>

#include "graft/autograd/ops/gather_columns.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicVar<T> gather_columns(const BasicVar<T>& a, std::span<const std::int32_t> list, Index fixed) {
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

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T) \
  template BasicVar<T> gather_columns(const BasicVar<T>&, std::span<const std::int32_t>, Index);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1
