#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>
#include <vector>

#include "graft/autograd/ops/straight_through.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicVar<T> straight_through_round(const BasicVar<T>& x) {
  return unary(
      x, [](T v) { return std::nearbyint(v); }, [](T, T) { return T{1}; });
}

template <std::floating_point T>
BasicVar<T> straight_through_clamp(const BasicVar<T>& x, std::type_identity_t<T> low,
                                   std::type_identity_t<T> high) {
  return unary(
      x, [=](T v) { return std::min(std::max(v, low), high); }, [](T, T) { return T{1}; });
}

template <std::floating_point T>
BasicVar<T> straight_through_above(const BasicVar<T>& x, std::type_identity_t<T> threshold) {
  return unary(
      x, [threshold](T v) { return v > threshold ? T{1} : T{0}; }, [](T, T) { return T{1}; });
}

template <std::floating_point T>
BasicVar<T> straight_through_without_smallest(const BasicVar<T>& x, Index count) {
  const auto& value = x.value();
  std::vector<Index> order(static_cast<std::size_t>(value.size()));
  std::iota(order.begin(), order.end(), Index{0});
  count = std::clamp<Index>(count, 0, value.size());
  std::partial_sort(order.begin(), order.begin() + count, order.end(), [&](Index a, Index b) {
    return value[a] < value[b] || (value[a] == value[b] && a < b);
  });
  auto mask = BasicTensor<T>::full(x.shape(), T{1});
  for (Index i = 0; i < count; ++i) mask[order[static_cast<std::size_t>(i)]] = 0;
  return x.tape().record(std::move(mask), x.requires_grad(),
                         [gx = x.grad_ref()](const BasicTensor<T>& dy) { gx.add(dy); });
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T)                                             \
  template BasicVar<T> straight_through_round(const BasicVar<T>&);       \
  template BasicVar<T> straight_through_clamp(const BasicVar<T>&, T, T); \
  template BasicVar<T> straight_through_above(const BasicVar<T>&, T);    \
  template BasicVar<T> straight_through_without_smallest(const BasicVar<T>&, Index);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1
