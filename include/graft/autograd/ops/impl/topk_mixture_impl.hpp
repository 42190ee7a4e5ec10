#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "graft/autograd/ops/topk_mixture.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
std::vector<std::int32_t> largest(const T* values, Index n, Index k) {
  std::vector<std::int32_t> order(static_cast<std::size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  const auto end = order.begin() + k;
  std::partial_sort(order.begin(), end, order.end(), [values](std::int32_t a, std::int32_t b) {
    return values[a] > values[b] || (values[a] == values[b] && a < b);
  });
  order.erase(end, order.end());
  return order;
}

template <std::floating_point T>
BasicVar<T> topk_mixture(const BasicVar<T>& logits, const BasicVar<T>& bank, Index k) {
  auto& tape = detail::common_tape("topk_mixture", logits, bank);
  const Index h = logits.cols(), length = bank.cols(), count = logits.rows();
  if (bank.shape().rank() != 2 || bank.rows() != h)
    throw ShapeError(concat("topk_mixture: logits ", logits.shape().text(), " for a bank ",
                            bank.shape().text()));
  if (k < 1 || k > h) throw ValueError(concat("topk_mixture: k ", k, ", expected 1 to ", h));
  std::vector<std::int32_t> chosen;
  chosen.reserve(static_cast<std::size_t>(count * k));
  auto weights = BasicTensor<T>::empty({count, k});
  auto y = BasicTensor<T>::zeros(logits.shape().with_last(length));
  for (Index i = 0; i < count; ++i) {
    const T* z = logits.value().data() + i * h;
    const auto top = largest(z, h, k);
    T total = 0;
    for (Index t = 0; t < k; ++t) {
      weights(i, t) = std::exp(z[top[static_cast<std::size_t>(t)]] - z[top[0]]);
      total += weights(i, t);
    }
    for (Index t = 0; t < k; ++t) {
      weights(i, t) /= total;
      kernels::axpy(weights(i, t), bank.value().data() + top[static_cast<std::size_t>(t)] * length,
                    y.data() + i * length, length);
    }
    chosen.insert(chosen.end(), top.begin(), top.end());
  }
  return tape.record(std::move(y), logits.requires_grad() || bank.requires_grad(),
                     [=, chosen = std::move(chosen), gl = logits.grad_ref(), gb = bank.grad_ref(),
                      vb = bank.value()](const BasicTensor<T>& dy) {
                       T* dl = gl ? gl.accumulator() : nullptr;
                       T* db = gb ? gb.accumulator() : nullptr;
                       std::vector<T> slope(static_cast<std::size_t>(k));
                       for (Index i = 0; i < count; ++i) {
                         const T* d = dy.data() + i * length;
                         T mean = 0;
                         for (Index t = 0; t < k; ++t) {
                           const Index row = chosen[static_cast<std::size_t>(i * k + t)];
                           slope[static_cast<std::size_t>(t)] =
                               kernels::dot(d, vb.data() + row * length, length);
                           mean += weights(i, t) * slope[static_cast<std::size_t>(t)];
                           if (db != nullptr)
                             kernels::axpy(weights(i, t), d, db + row * length, length);
                         }
                         if (dl == nullptr) continue;
                         for (Index t = 0; t < k; ++t)
                           dl[i * h + chosen[static_cast<std::size_t>(i * k + t)]] +=
                               weights(i, t) * (slope[static_cast<std::size_t>(t)] - mean);
                       }
                     });
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T)                                          \
  template std::vector<std::int32_t> largest(const T*, Index, Index); \
  template BasicVar<T> topk_mixture(const BasicVar<T>&, const BasicVar<T>&, Index);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1
