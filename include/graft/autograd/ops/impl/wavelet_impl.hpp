#pragma once

#include <utility>

#include "graft/autograd/ops/wavelet.hpp"

namespace graft::inline v0_1::detail {

/// Signals [length, n] to coefficients [2 half, n], or back with the transposed map.
template <class T>
BasicTensor<T> wavelet_columns(const BasicTensor<T>& x, const WaveletLevel& level, bool back) {
  const Index n = x.cols();
  auto y = BasicTensor<T>::zeros({back ? level.length : 2 * level.half, n});
  constexpr Index kSlice = 256;
  ThreadPool::global().parallel_for((n + kSlice - 1) / kSlice, [&](Index k) {
    const Index first = k * kSlice, count = std::min(kSlice, n - first);
    level.each([&](Index position, Index coefficient, double factor) {
      const Index from = back ? coefficient : position, to = back ? position : coefficient;
      kernels::axpy(static_cast<T>(factor), x.data() + from * n + first, y.data() + to * n + first,
                    count);
    });
  });
  return y;
}

template <class T>
BasicVar<T> wavelet_op(const BasicVar<T>& x, std::shared_ptr<const WaveletLevel> level, bool back) {
  const Index expected = back ? 2 * level->half : level->length;
  if (x.shape().rank() != 2 || x.dim(0) != expected)
    throw ShapeError(concat(back ? "wavelet_synthesis: " : "wavelet_analysis: ", x.shape().text(),
                            ", expected [", expected, ", n]"));
  auto y = wavelet_columns(x.value(), *level, back);
  return x.tape().record(
      std::move(y), x.requires_grad(),
      [gx = x.grad_ref(), level = std::move(level), back](const BasicTensor<T>& dy) {
        gx.add(wavelet_columns(dy, *level, !back));
      });
}

}  // namespace graft::inline v0_1::detail

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicVar<T> wavelet_analysis(const BasicVar<T>& x, std::shared_ptr<const WaveletLevel> level) {
  return detail::wavelet_op(x, std::move(level), false);
}

template <std::floating_point T>
BasicVar<T> wavelet_synthesis(const BasicVar<T>& x, std::shared_ptr<const WaveletLevel> level) {
  return detail::wavelet_op(x, std::move(level), true);
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T)                                                                      \
  template BasicVar<T> wavelet_analysis(const BasicVar<T>&, std::shared_ptr<const WaveletLevel>); \
  template BasicVar<T> wavelet_synthesis(const BasicVar<T>&, std::shared_ptr<const WaveletLevel>);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1
