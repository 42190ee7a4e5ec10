#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "graft/autograd/ops/common.hpp"

namespace graft::inline v0_1 {

/// One level of a discrete wavelet transform between signals of `length` numbers and 2 · `half`
/// coefficients, first those of the low pass f₀, then those of the high pass f₁.
struct WaveletLevel {
  Index length = 0, half = 0;
  Index shift = 0;                ///< number of the filter's element that meets x₀ at l = 0
  std::vector<double> low, high;  ///< of the same even length

  /// Calls f(signal position, coefficient, factor) for everything that is not zero.
  template <class F>
  void each(F&& f) const {
    const auto taps = static_cast<Index>(low.size());
    for (const bool pass : {false, true})
      for (Index l = 0; l < half; ++l) {
        const Index start = 2 * l - shift;
        for (Index t = std::max<Index>(0, -start); t < std::min(taps, length - start); ++t)
          f(start + t, (pass ? half : 0) + l, (pass ? high : low)[static_cast<std::size_t>(t)]);
      }
  }
};

namespace detail {

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

}  // namespace detail

/// Coefficients c_{p, l} = Σ_i f_p[i + shift − 2 l] x_i of signals that are the columns of x:
/// [length, n] to [2 half, n]. The transpose of the synthesis. @throws ShapeError
template <std::floating_point T>
BasicVar<T> wavelet_analysis(const BasicVar<T>& x, std::shared_ptr<const WaveletLevel> level) {
  return detail::wavelet_op(x, std::move(level), false);
}
/// Signals x_i = Σ_{p, l} f_p[i + shift − 2 l] c_{p, l}: [2 half, n] to [length, n].
/// @throws ShapeError
template <std::floating_point T>
BasicVar<T> wavelet_synthesis(const BasicVar<T>& x, std::shared_ptr<const WaveletLevel> level) {
  return detail::wavelet_op(x, std::move(level), true);
}

}  // namespace graft::inline v0_1
