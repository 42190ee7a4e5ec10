#pragma once

#include <concepts>

#include "graft/base/types.hpp"

/// Discrete Fourier transforms of real numbers. In double by the FFT module of Eigen. In float by
/// Stockham's passes over 32 vectors at once, one a vector lane: Eigen's, one vector after the
/// other in scalar code, made methods that transform activations cost three to five times the
/// frozen layer.
namespace graft::inline v0_1::detail {

/// Spectra of `count` vectors of n real numbers each, `stride_x` apart. Frequency f = 0 … n / 2 of
/// vector i goes to re[f · stride + i] and im[f · stride + i].
template <std::floating_point T>
void real_fft(const T* x, Index stride_x, Index count, Index n, T* re, T* im, Index stride);
/// The way back, with the factor 1 / n.
template <std::floating_point T>
void inverse_real_fft(const T* re, const T* im, Index stride, Index count, Index n, T* x,
                      Index stride_x);

}  // namespace graft::inline v0_1::detail

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/tensor/impl/fft_impl.hpp"
#endif
