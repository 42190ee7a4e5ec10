#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "graft/autograd/ops/common.hpp"

namespace graft {

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

/// Signals [..., length] to coefficients [..., 2 half], or back with the transposed map.
template <class T>
BasicTensor<T> wavelet_rows(const BasicTensor<T>& x, const WaveletLevel& level, bool back) {
  const Index width = 2 * level.half, rows = x.rows(), to = back ? level.length : width;
  auto y = BasicTensor<T>::zeros(x.shape().with_last(to));
  ThreadPool::global().parallel_for((rows + 7) / 8, [&](Index k) {
    for (Index i = 8 * k; i < std::min(rows, 8 * k + 8); ++i) {
      const T* from = x.data() + i * x.cols();
      T* result = y.data() + i * to;
      level.each([&](Index position, Index coefficient, double factor) {
        if (back)
          result[position] += static_cast<T>(factor) * from[coefficient];
        else
          result[coefficient] += static_cast<T>(factor) * from[position];
      });
    }
  });
  return y;
}

template <class T>
BasicVar<T> wavelet_op(const BasicVar<T>& x, std::shared_ptr<const WaveletLevel> level, bool back) {
  const Index expected = back ? 2 * level->half : level->length;
  if (x.cols() != expected)
    throw ShapeError(concat(back ? "wavelet_synthesis: " : "wavelet_analysis: ", x.shape().text(),
                            ", expected [..., ", expected, "]"));
  auto y = wavelet_rows(x.value(), *level, back);
  return x.tape().record(
      std::move(y), x.requires_grad(),
      [gx = x.grad_ref(), level = std::move(level), back](const BasicTensor<T>& dy) {
        gx.add(wavelet_rows(dy, *level, !back));
      });
}

}  // namespace detail

/// Coefficients c_{p, l} = Σ_i f_p[i + shift − 2 l] x_i of the last axis: [..., length] to [..., 2
/// half]. The transpose of the synthesis. @throws ShapeError
template <std::floating_point T>
BasicVar<T> wavelet_analysis(const BasicVar<T>& x, std::shared_ptr<const WaveletLevel> level) {
  return detail::wavelet_op(x, std::move(level), false);
}
/// Signals x_i = Σ_{p, l} f_p[i + shift − 2 l] c_{p, l}: [..., 2 half] to [..., length].
/// @throws ShapeError
template <std::floating_point T>
BasicVar<T> wavelet_synthesis(const BasicVar<T>& x, std::shared_ptr<const WaveletLevel> level) {
  return detail::wavelet_op(x, std::move(level), true);
}

}  // namespace graft
