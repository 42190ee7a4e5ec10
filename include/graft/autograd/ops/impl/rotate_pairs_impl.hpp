#pragma once

#include <utility>

#include "graft/autograd/ops/rotate_pairs.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicVar<T> rotate_pairs(const BasicVar<T>& x, const BasicVar<T>& c, const BasicVar<T>& s,
                         Index group) {
  auto& tape = detail::common_tape("rotate_pairs", x, c, s);
  const Index n = x.cols(), half = group / 2;
  if (group < 2 || group % 2 != 0 || n % group != 0 || c.size() != n || s.size() != n)
    throw ShapeError(concat("rotate_pairs: ", x.shape().text(), " with factors ", c.shape().text(),
                            " and ", s.shape().text(), " in groups of ", group));
  auto y = BasicTensor<T>::empty(x.shape());
  constexpr Index kRows = 16;
  const Index rows = x.rows();
  const auto each_chunk = [rows](auto&& f) {
    ThreadPool::global().parallel_for((rows + kRows - 1) / kRows, [&](Index k) {
      for (Index r = k * kRows; r < std::min(rows, (k + 1) * kRows); ++r) f(r);
    });
  };
  // Work by halves of groups: contiguous runs that kernels take.
  const auto vc = c.value(), vs = s.value();
  each_chunk([&](Index r) {
    const T* from = x.value().data() + r * n;
    T* to = y.data() + r * n;
    for (Index g = 0; g < n; g += group)
      for (Index i = g; i < g + half; ++i) {
        const T u = from[i], v = from[i + half];
        to[i] = vc.data()[i] * u + vs.data()[i] * v;
        to[i + half] = vc.data()[i + half] * v + vs.data()[i + half] * u;
      }
  });
  const bool factors = c.requires_grad() || s.requires_grad();
  return tape.record(std::move(y), x.requires_grad() || factors,
                     [=, gx = x.grad_ref(), gc = c.grad_ref(), gs = s.grad_ref(),
                      kept = factors ? x.saved() : BasicSaved<T>{}](const BasicTensor<T>& dy) {
                       if (gx) {
                         auto [dx, accumulate] = gx.buffer();
                         T* to_rows = dx;
                         const bool add = accumulate;
                         each_chunk([&](Index r) {
                           const T* from = dy.data() + r * n;
                           T* to = to_rows + r * n;
                           for (Index g = 0; g < n; g += group)
                             for (Index i = g; i < g + half; ++i) {
                               const T u = from[i], v = from[i + half];
                               const T first = vc.data()[i] * u + vs.data()[i + half] * v;
                               const T second = vc.data()[i + half] * v + vs.data()[i] * u;
                               to[i] = add ? to[i] + first : first;
                               to[i + half] = add ? to[i + half] + second : second;
                             }
                         });
                       }
                       if (!gc && !gs) return;
                       auto dc = BasicTensor<T>::zeros({n}), ds = BasicTensor<T>::zeros({n});
                       const auto& vx = kept.get();
                       for (Index r = 0; r < rows; ++r) {
                         const T* from = vx.data() + r * n;
                         const T* back = dy.data() + r * n;
                         for (Index g = 0; g < n; g += group)
                           for (Index i = g; i < g + half; ++i) {
                             dc.data()[i] += back[i] * from[i];
                             dc.data()[i + half] += back[i + half] * from[i + half];
                             ds.data()[i] += back[i] * from[i + half];
                             ds.data()[i + half] += back[i + half] * from[i];
                           }
                       }
                       if (gc) gc.add(dc);
                       if (gs) gs.add(ds);
                     });
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T)                                                                    \
  template BasicVar<T> rotate_pairs(const BasicVar<T>&, const BasicVar<T>&, const BasicVar<T>&, \
                                    Index);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1
