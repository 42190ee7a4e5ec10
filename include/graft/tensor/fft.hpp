#pragma once

#include <concepts>

#include "graft/base/types.hpp"

/// Discrete Fourier transforms of real numbers, by the FFT module of Eigen (its own kissfft code):
/// Eigen is here already, and other libraries would be one more dependency.
namespace graft::detail {

/// Spectra of `count` vectors of n real numbers each, one after the other in x. Frequency f = 0 …
/// n / 2 of vector i goes to re[f · stride + i] and im[f · stride + i].
template <std::floating_point T>
void real_fft(const T* x, Index count, Index n, T* re, T* im, Index stride);
/// The way back, with the factor 1 / n.
template <std::floating_point T>
void inverse_real_fft(const T* re, const T* im, Index stride, Index count, Index n, T* x);

}  // namespace graft::detail

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/tensor/impl/fft_impl.hpp"
#endif
