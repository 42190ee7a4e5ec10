#pragma once

#include <utility>

#include "graft/autograd/ops/common.hpp"
#include "graft/tensor/fft.hpp"

namespace graft::inline v0_1 {

namespace detail {

/// x [rows, n] to its half spectra, feature by feature: [2 (n / 2 + 1), rows], real parts first.
template <class T>
BasicTensor<T> spectrum_of(const BasicTensor<T>& x);
template <class T>
BasicTensor<T> signal_of(const BasicTensor<T>& z, Index n, const Shape& shape);

}  // namespace detail

/// Discrete Fourier transform of the last axis: X_f = Σ_i x_i e^{−2πi f i / n}, f = 0 … n / 2.
/// x: [..., n], result [2 (n / 2 + 1), rows] with one column a row of x, real parts first.
template <std::floating_point T>
BasicVar<T> real_spectrum(const BasicVar<T>& x);

/// The way back: x_i = Re Σ_f Z_f e^{2πi f i / n} / n over all n frequencies, those that are not in
/// z the conjugates of their mirrors. z: [2 (n / 2 + 1), rows], result of `shape`, rows of n.
/// @throws ShapeError if the sizes do not fit.
template <std::floating_point T>
BasicVar<T> inverse_spectrum(const BasicVar<T>& z, const Shape& shape);

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/autograd/ops/impl/spectrum_impl.hpp"
#endif
