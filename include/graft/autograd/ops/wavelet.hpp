#pragma once

#include <memory>
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

/// Coefficients c_{p, l} = Σ_i f_p[i + shift − 2 l] x_i of signals that are the columns of x:
/// [length, n] to [2 half, n]. The transpose of the synthesis. @throws ShapeError
template <std::floating_point T>
BasicVar<T> wavelet_analysis(const BasicVar<T>& x, std::shared_ptr<const WaveletLevel> level);
/// Signals x_i = Σ_{p, l} f_p[i + shift − 2 l] c_{p, l}: [2 half, n] to [length, n].
/// @throws ShapeError
template <std::floating_point T>
BasicVar<T> wavelet_synthesis(const BasicVar<T>& x, std::shared_ptr<const WaveletLevel> level);

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/autograd/ops/impl/wavelet_impl.hpp"
#endif
