#pragma once

#include <array>
#include <cstddef>
#include <type_traits>

#include "graft/kernels/frozen.hpp"
#include "graft/layers/sites/linear_site.hpp"

namespace graft::inline v0_1 {

/// The outputs of several layers for one input. Frozen layers that round a few rows to 8 bits (see
/// Activations) do that once and share one loop of the thread pool.
template <std::floating_point T, std::size_t N>
std::array<BasicVar<T>, N> apply_each(const BasicVar<T>& x,
                                      const std::array<const BasicLinearSite<T>*, N>& sites) {
  std::array<BasicVar<T>, N> results;
  if constexpr (std::is_same_v<T, float>) {
    std::array<kernels::FrozenPart, N> parts;
    std::array<BasicTensor<T>, N> biases;
    bool together = x.rows() <= kernels::kMaxInt8Rows && !x.requires_grad();
    for (std::size_t i = 0; together && i < N; ++i) {
      together = !sites[i]->adapted(x.tape());
      if (together) parts[i].w = sites[i]->base().frozen_weight();
      together = together && parts[i].w.dot_int8 != nullptr && parts[i].w.in == x.cols();
    }
    if (together) {
      for (std::size_t i = 0; i < N; ++i) {
        const Index out = parts[i].w.out;
        results[i] = x.tape().constant(BasicTensor<T>::empty(x.shape().with_last(out)));
        biases[i] = sites[i]->base().bias();
        parts[i].bias = biases[i].data();
        parts[i].y = results[i].value().data();
        parts[i].ldy = out;
      }
      kernels::frozen_forward_each(parts.data(), N, x.value().data(), x.rows(), x.cols());
      return results;
    }
  }
  for (std::size_t i = 0; i < N; ++i) results[i] = (*sites[i])(x);
  return results;
}

}  // namespace graft::inline v0_1
