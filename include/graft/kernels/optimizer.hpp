#pragma once

#include <type_traits>

#include "graft/kernels/isa.hpp"

/// Optimiser steps on n contiguous parameters. T = float or double. Gradients are multiplied by
/// grad_scale first.
namespace graft::kernels {

/// AdamW (Loshchilov and Hutter 2019) as torch.optim.AdamW does it:
///
///     param *= 1 − lr · weight_decay
///     m = beta1 · m + (1 − beta1) · g;  v = beta2 · v + (1 − beta2) · g²
///     param −= lr / bias_correction1 · m / (√v / √bias_correction2 + eps)
///
/// with bias_correction_i = 1 − beta_i^t at step t = 1, 2, …
template <class T>
void adamw_step(T* param, const std::type_identity_t<T>* grad, std::type_identity_t<T>* m,
                std::type_identity_t<T>* v, Index n, std::type_identity_t<T> lr,
                std::type_identity_t<T> beta1, std::type_identity_t<T> beta2,
                std::type_identity_t<T> eps, std::type_identity_t<T> weight_decay,
                std::type_identity_t<T> bias_correction1, std::type_identity_t<T> bias_correction2,
                std::type_identity_t<T> grad_scale);

/// Stochastic gradient descent as torch.optim.SGD does it:
///
///     g += weight_decay · param
///     buffer = momentum · buffer + (1 − dampening) · g,  at the first step buffer = g
///     g = nesterov ? g + momentum · buffer : buffer
///     param −= lr · g
///
/// With a null buffer there is no momentum: the second and third line are left out.
template <class T>
void sgd_step(T* param, const std::type_identity_t<T>* grad, std::type_identity_t<T>* buffer,
              Index n, std::type_identity_t<T> lr, std::type_identity_t<T> momentum,
              std::type_identity_t<T> dampening, std::type_identity_t<T> weight_decay,
              bool nesterov, bool first_step, std::type_identity_t<T> grad_scale);

}  // namespace graft::kernels

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/kernels/impl/optimizer_impl.hpp"
#endif
