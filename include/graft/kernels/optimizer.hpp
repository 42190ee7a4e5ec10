#pragma once

#include <type_traits>

#include "graft/kernels/isa.hpp"

/// Optimiser steps on n contiguous parameters. T = float or double. Gradients are multiplied by
/// grad_scale first. The settings are double: 1 − beta and the like are rounded to T once, at the
/// end.
namespace graft::inline v0_1::kernels {

/// AdamW (Loshchilov and Hutter 2019) as torch.optim.AdamW does it:
///
///     param *= 1 − lr · weight_decay
///     m = beta1 · m + (1 − beta1) · g;  v = beta2 · v + (1 − beta2) · g²
///     param −= lr / bias_correction1 · m / (√v / √bias_correction2 + eps)
///
/// with bias_correction_i = 1 − beta_i^t at step t = 1, 2, …
template <class T>
void adamw_step(T* param, const std::type_identity_t<T>* grad, std::type_identity_t<T>* m,
                std::type_identity_t<T>* v, Index n, double lr, double beta1, double beta2,
                double eps, double weight_decay, double bias_correction1, double bias_correction2,
                double grad_scale);

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
              Index n, double lr, double momentum, double dampening, double weight_decay,
              bool nesterov, bool first_step, double grad_scale);

}  // namespace graft::inline v0_1::kernels

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/kernels/impl/optimizer_impl.hpp"
#endif
