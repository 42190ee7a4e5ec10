#pragma once

#include <algorithm>

#include "graft/autograd/ops/mix_pairs.hpp"

namespace graft::inline v0_1 {

GRAFT_KERNEL ColumnPairs tree_pairs(Index d) {
  ColumnPairs pairs;
  for (Index stride = 1; stride < d; stride *= 2)
    for (Index i = 0; i + stride < d; i += 2 * stride)
      pairs.emplace_back(static_cast<std::int32_t>(i), static_cast<std::int32_t>(i + stride));
  return pairs;
}

}  // namespace graft::inline v0_1

namespace graft::inline v0_1::detail {

/// Some rows of x as columns, [d, kPairLanes]; lanes without a row are zero.
template <class T>
void lanes_of(const T* x, Index d, Index rows, T* lanes) {
  for (Index i = 0; i < d; ++i)
    for (Index r = 0; r < kPairLanes; ++r)
      lanes[i * kPairLanes + r] = r < rows ? x[r * d + i] : T{0};
}

template <class T>
void rows_of(const T* lanes, Index d, Index rows, T* x) {
  for (Index r = 0; r < rows; ++r)
    for (Index i = 0; i < d; ++i) x[r * d + i] = lanes[i * kPairLanes + r];
}

/// (a, b) ← (m₀ a + m₂ b, m₁ a + m₃ b), lane by lane.
template <class T>
void mix(T* a, T* b, T m0, T m1, T m2, T m3) {
  for (Index r = 0; r < kPairLanes; ++r) {
    const T u = a[r], v = b[r];
    a[r] = m0 * u + m2 * v;
    b[r] = m1 * u + m3 * v;
  }
}

}  // namespace graft::inline v0_1::detail

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicVar<T> mix_pairs(const BasicVar<T>& x, const BasicVar<T>& m,
                      std::shared_ptr<const ColumnPairs> pairs) {
  auto& tape = detail::common_tape("mix_pairs", x, m);
  const auto count = static_cast<Index>(pairs->size());
  if (m.size() != 4 * count)
    throw ShapeError(concat("mix_pairs: ", count, " pairs, matrices ", m.shape().text()));
  const Index d = x.cols(), rows = x.rows();
  constexpr Index kLanes = detail::kPairLanes;
  const Index chunks = (rows + kLanes - 1) / kLanes;
  const auto vm = m.value();
  auto y = BasicTensor<T>::empty(x.shape());
  ThreadPool::global().parallel_for(chunks, [&](Index c) {
    auto work = BasicTensor<T>::empty({d, kLanes});
    const Index first = c * kLanes, some = std::min(kLanes, rows - first);
    T* lanes = work.data();
    detail::lanes_of(x.value().data() + first * d, d, some, lanes);
    for (Index p = count - 1; p >= 0; --p) {
      const auto [i, j] = (*pairs)[static_cast<std::size_t>(p)];
      const T* e = vm.data() + 4 * p;
      detail::mix(lanes + i * kLanes, lanes + j * kLanes, e[0], e[1], e[2], e[3]);
    }
    detail::rows_of(lanes, d, some, y.data() + first * d);
  });
  return tape.record(
      std::move(y), x.requires_grad() || m.requires_grad(),
      [=, gx = x.grad_ref(), gm = m.grad_ref(),
       kept = m.requires_grad() ? x.saved() : BasicSaved<T>{}](const BasicTensor<T>& dy) {
        auto dx = gx ? BasicTensor<T>::empty(gx.shape()) : BasicTensor<T>{};
        // Sums over fixed parts of the rows, so that threads do not change the order.
        const Index parts = gm ? std::min<Index>(chunks, 16) : chunks;
        auto sums = gm ? BasicTensor<T>::zeros({parts, 4 * count}) : BasicTensor<T>{};
        const BasicTensor<T> from = gm ? kept.get() : BasicTensor<T>{};
        ThreadPool::global().parallel_for(parts, [&](Index part) {
          auto work = BasicTensor<T>::empty({d, kLanes});
          // What each pair read: [count, 2, lanes].
          auto read = gm ? BasicTensor<T>::empty({count, 2 * kLanes}) : BasicTensor<T>{};
          T* lanes = work.data();
          for (Index c = part * chunks / parts; c < (part + 1) * chunks / parts; ++c) {
            const Index first = c * kLanes, some = std::min(kLanes, rows - first);
            if (gm) {
              detail::lanes_of(from.data() + first * d, d, some, lanes);
              for (Index p = count - 1; p >= 0; --p) {
                const auto [i, j] = (*pairs)[static_cast<std::size_t>(p)];
                const T* e = vm.data() + 4 * p;
                T* a = lanes + i * kLanes;
                T* b = lanes + j * kLanes;
                std::copy_n(a, kLanes, read.data() + p * 2 * kLanes);
                std::copy_n(b, kLanes, read.data() + p * 2 * kLanes + kLanes);
                detail::mix(a, b, e[0], e[1], e[2], e[3]);
              }
            }
            detail::lanes_of(dy.data() + first * d, d, some, lanes);
            for (Index p = 0; p < count; ++p) {
              const auto [i, j] = (*pairs)[static_cast<std::size_t>(p)];
              const T* e = vm.data() + 4 * p;
              T* a = lanes + i * kLanes;
              T* b = lanes + j * kLanes;
              if (gm) {
                const T* u = read.data() + p * 2 * kLanes;
                const T* v = u + kLanes;
                T s0{}, s1{}, s2{}, s3{};
                for (Index r = 0; r < kLanes; ++r) {
                  s0 += u[r] * a[r];
                  s1 += u[r] * b[r];
                  s2 += v[r] * a[r];
                  s3 += v[r] * b[r];
                }
                T* to = sums.data() + (part * count + p) * 4;
                to[0] += s0;
                to[1] += s1;
                to[2] += s2;
                to[3] += s3;
              }
              detail::mix(a, b, e[0], e[2], e[1], e[3]);
            }
            if (gx) detail::rows_of(lanes, d, some, dx.data() + first * d);
          }
        });
        if (gx) gx.add(dx);
        if (!gm) return;
        auto dm = BasicTensor<T>::zeros(gm.shape());
        for (Index part = 0; part < parts; ++part)
          kernels::add(dm.data(), sums.data() + part * 4 * count, dm.data(), 4 * count);
        gm.add(dm);
      });
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T)                                             \
  template BasicVar<T> mix_pairs(const BasicVar<T>&, const BasicVar<T>&, \
                                 std::shared_ptr<const ColumnPairs>);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1
