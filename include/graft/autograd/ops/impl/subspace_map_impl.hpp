#pragma once

#include "graft/autograd/ops/subspace_map.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicVar<T> subspace_map(const BasicVar<T>& theta, std::shared_ptr<const SubspaceMap<T>> map) {
  if (theta.size() != map->inputs())
    throw ShapeError(
        concat("subspace_map: ", theta.shape().text(), " for a map of ", map->inputs(), " inputs"));
  auto y = BasicTensor<T>::empty({map->outputs()});
  map->apply(theta.value().data(), y.data());
  return theta.tape().record(
      std::move(y), theta.requires_grad(),
      [map = std::move(map), g = theta.grad_ref()](const BasicTensor<T>& dy) {
        map->add_adjoint(dy.data(), g.accumulator());
      });
}

GRAFT_KERNEL Index fastfood_length(Index outputs, Index inputs) {
  Index length = 1;
  while (length < std::max(outputs, inputs)) length *= 2;
  return length;
}

template <std::floating_point T>
FastfoodDraw<T> draw_fastfood(Index length, std::uint64_t seed) {
  const auto n = static_cast<std::size_t>(length);
  TorchGenerator generator(splitmix64(seed));
  FastfoodDraw<T> draw;
  draw.signs.resize(n);
  for (T& s : draw.signs) s = (generator.random32() & 1U) != 0 ? T{1} : T{-1};
  const auto order = generator.randperm(length);
  draw.permutation.assign(order.begin(), order.end());
  std::vector<float> normals(n);
  generator.normal(normals.data(), length);
  draw.normals.assign(normals.begin(), normals.end());
  return draw;
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T)                                                                    \
  template BasicVar<T> subspace_map(const BasicVar<T>&, std::shared_ptr<const SubspaceMap<T>>); \
  template FastfoodDraw<T> draw_fastfood(Index, std::uint64_t);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1
