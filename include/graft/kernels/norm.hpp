#pragma once

#include <type_traits>

#include "graft/kernels/isa.hpp"

/// Normalisation of rows: row i of x starts at x + i · ldx and has n values. T = float or double.
/// Results do not depend on the number of threads.
namespace graft::inline v0_1::kernels {

/// y = x / rms(x) · (weight + weight_offset), rms(x) = √(Σ x² / n + eps) (Zhang and Sennrich 2019).
///
/// A null weight counts as 1 (without the offset). weight_offset is 1 for checkpoints that store
/// weight − 1, else 0. inv_rms receives 1 / rms of each row. y may be x.
template <class T>
void rms_norm_forward(const T* x, Index rows, Index n, Index ldx,
                      const std::type_identity_t<T>* weight, std::type_identity_t<T> eps,
                      std::type_identity_t<T> weight_offset, std::type_identity_t<T>* y, Index ldy,
                      std::type_identity_t<T>* inv_rms);

/// Adds the gradients to dx and dweight; either may be null.
///
/// With g = dy · (weight + weight_offset) and z = x · inv_rms: dx += inv_rms · (g − z Σ g z / n),
/// dweight += Σ_rows dy · z.
template <class T>
void rms_norm_backward(const T* x, Index rows, Index n, Index ldx,
                       const std::type_identity_t<T>* weight, std::type_identity_t<T> weight_offset,
                       const std::type_identity_t<T>* inv_rms, const std::type_identity_t<T>* dy,
                       Index lddy, std::type_identity_t<T>* dx, Index lddx,
                       std::type_identity_t<T>* dweight);

/// y = (x − mean) · inv_std · weight + bias, inv_std = 1 / √(variance + eps) with the biased
/// variance (Ba et al. 2016). A null weight counts as 1, a null bias as 0. y may be x.
template <class T>
void layer_norm_forward(const T* x, Index rows, Index n, Index ldx,
                        const std::type_identity_t<T>* weight, const std::type_identity_t<T>* bias,
                        std::type_identity_t<T> eps, std::type_identity_t<T>* y, Index ldy,
                        std::type_identity_t<T>* mean, std::type_identity_t<T>* inv_std);

/// Adds the gradients to dx, dweight and dbias; any of them may be null.
///
/// With g = dy · weight and z = (x − mean) · inv_std: dx += inv_std · (g − Σ g / n − z Σ g z / n),
/// dweight += Σ_rows dy · z, dbias += Σ_rows dy.
template <class T>
void layer_norm_backward(const T* x, Index rows, Index n, Index ldx,
                         const std::type_identity_t<T>* weight, const std::type_identity_t<T>* mean,
                         const std::type_identity_t<T>* inv_std, const std::type_identity_t<T>* dy,
                         Index lddy, std::type_identity_t<T>* dx, Index lddx,
                         std::type_identity_t<T>* dweight, std::type_identity_t<T>* dbias);

}  // namespace graft::inline v0_1::kernels

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/kernels/impl/norm_impl.hpp"
#endif
