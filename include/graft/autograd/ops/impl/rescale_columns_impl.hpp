#pragma once

#include <cmath>

#include "graft/autograd/ops/rescale_columns.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicVar<T> rescale_columns(const BasicVar<T>& z, const BasicVar<T>& g, const BasicTensor<T>& b) {
  auto& tape = detail::common_tape("rescale_columns", z, g);
  const Index n = z.cols(), rows = z.rows();
  if (g.size() != n || (b && b.size() != n))
    throw ShapeError(concat("rescale_columns: ", z.shape().text(), " by ", g.shape().text()));
  constexpr Index kRows = 32;  // a block; sums over blocks do not depend on the threads
  const Index blocks = (rows + kRows - 1) / kRows;
  const auto vg = g.value();
  BasicTensor<T> shift;  // (1 − g) ⊙ b
  if (b) {
    shift = BasicTensor<T>::empty({n});
    for (Index j = 0; j < n; ++j) shift[j] = (T{1} - vg[j]) * b[j];
  }
  auto y = BasicTensor<T>::empty(z.shape());
  const auto each_block = [rows, blocks](auto&& f) {
    ThreadPool::global().parallel_for(
        blocks, [&](Index k) { f(k, k * kRows, std::min(rows, (k + 1) * kRows)); });
  };
  each_block([&](Index, Index first, Index last) {
    for (Index i = first; i < last; ++i) {
      T* to = y.data() + i * n;
      kernels::mul(z.value().data() + i * n, vg.data(), to, n);
      if (shift) kernels::add(to, shift.data(), to, n);
    }
  });
  bool small = false;
  if (g.requires_grad())
    for (T v : vg) small = small || std::abs(v) < T{1} / T{64};
  return tape.record(y, z.requires_grad() || g.requires_grad(),
                     [=, gz = z.grad_ref(), gg = g.grad_ref(),
                      kept = !g.requires_grad() ? BasicTensor<T>{}
                             : small            ? z.value()
                                                : y](const BasicTensor<T>& dy) {
                       T* dz = nullptr;
                       bool accumulate = false;
                       if (gz) {
                         auto buffer = gz.buffer();
                         dz = buffer.data;
                         accumulate = buffer.accumulate;
                       }
                       auto partial = BasicTensor<T>::zeros({gg ? blocks : 0, n});
                       each_block([&](Index k, Index first, Index last) {
                         auto scratch = BasicTensor<T>::empty({n});
                         T* work = scratch.data();
                         for (Index i = first; i < last; ++i) {
                           const T* d = dy.data() + i * n;
                           if (dz != nullptr) {
                             T* to = dz + i * n;
                             kernels::mul(d, vg.data(), accumulate ? work : to, n);
                             if (accumulate) kernels::add(to, work, to, n);
                           }
                           if (!gg) continue;
                           const T* value = kept.data() + i * n;
                           if (b) {
                             kernels::sub(value, b.data(), work, n);
                             value = work;
                           }
                           kernels::mul(d, value, work, n);
                           kernels::add(partial.data() + k * n, work, partial.data() + k * n, n);
                         }
                       });
                       if (!gg) return;
                       auto dg = BasicTensor<T>::zeros(gg.shape());
                       for (Index k = 0; k < blocks; ++k)
                         kernels::add(dg.data(), partial.data() + k * n, dg.data(), n);
                       if (!small)
                         for (Index j = 0; j < n; ++j) dg[j] /= vg[j];
                       gg.add(dg);
                     });
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T)                                                   \
  template BasicVar<T> rescale_columns(const BasicVar<T>&, const BasicVar<T>&, \
                                       const BasicTensor<T>&);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1
