#pragma once

#include <complex>
#include <unsupported/Eigen/FFT>
#include <vector>

#include "graft/tensor/fft.hpp"

namespace graft::detail {

template <std::floating_point T>
void real_fft(const T* x, Index count, Index n, T* re, T* im, Index stride) {
  Eigen::FFT<T> fft;
  std::vector<std::complex<T>> spectrum(static_cast<std::size_t>(n));
  for (Index i = 0; i < count; ++i) {
    if (n == 1)
      spectrum[0] = x[i];
    else
      fft.fwd(spectrum.data(), x + i * n, n);
    for (Index f = 0; f <= n / 2; ++f) {
      re[f * stride + i] = spectrum[static_cast<std::size_t>(f)].real();
      im[f * stride + i] = spectrum[static_cast<std::size_t>(f)].imag();
    }
  }
}

template <std::floating_point T>
void inverse_real_fft(const T* re, const T* im, Index stride, Index count, Index n, T* x) {
  Eigen::FFT<T> fft;
  std::vector<std::complex<T>> spectrum(static_cast<std::size_t>(n));
  for (Index i = 0; i < count; ++i) {
    for (Index f = 0; f <= n / 2; ++f)
      spectrum[static_cast<std::size_t>(f)] = {re[f * stride + i], im[f * stride + i]};
    if (n == 1)
      x[i] = spectrum[0].real();
    else
      fft.inv(x + i * n, spectrum.data(), n);
  }
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
template void real_fft<float>(const float*, Index, Index, float*, float*, Index);
template void real_fft<double>(const double*, Index, Index, double*, double*, Index);
template void inverse_real_fft<float>(const float*, const float*, Index, Index, Index, float*);
template void inverse_real_fft<double>(const double*, const double*, Index, Index, Index, double*);
#endif

}  // namespace graft::detail
