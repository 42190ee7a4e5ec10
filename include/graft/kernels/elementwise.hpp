#pragma once

#include <cstdint>
#include <type_traits>

#include "graft/kernels/isa.hpp"

/// Operations on n contiguous values, T = float or double. Results may be written over inputs; they
/// do not depend on the number of threads. Where a gradient is added to (`+=`), a null pointer
/// skips it.
namespace graft::inline v0_1::kernels {

/// y = a + b.
template <class T>
void add(const T* a, const std::type_identity_t<T>* b, std::type_identity_t<T>* y, Index n);
/// y = a − b.
template <class T>
void sub(const T* a, const std::type_identity_t<T>* b, std::type_identity_t<T>* y, Index n);
/// y = a · b, element by element.
template <class T>
void mul(const T* a, const std::type_identity_t<T>* b, std::type_identity_t<T>* y, Index n);
/// y += alpha · x.
template <class T>
void axpy(std::type_identity_t<T> alpha, const T* x, std::type_identity_t<T>* y, Index n);
/// y = alpha · x.
template <class T>
void scale(std::type_identity_t<T> alpha, const T* x, std::type_identity_t<T>* y, Index n);
/// y = value.
template <class T>
void fill(std::type_identity_t<T> value, T* y, Index n);
/// y = x rounded to the nearest bf16, ties to even, as the 16 bits that bf16 has; NaN stays NaN.
GRAFT_KERNEL void pack_bf16(const float* x, std::uint16_t* y, Index n);
/// y = x, from bf16.
GRAFT_KERNEL void unpack_bf16(const std::uint16_t* x, float* y, Index n);
/// Σ x, in blocks of a size that depends on n alone.
template <class T>
T sum(const T* x, Index n);
/// Σ a · b, in the same blocks.
template <class T>
T dot(const T* a, const std::type_identity_t<T>* b, Index n);

/// gelu is x Φ(x) with the normal distribution Φ; gelu_tanh x σ(2 √(2/π) (x + 0.044715 x³)), which
/// is the form with tanh; silu x σ(x); quick_gelu x σ(1.702 x).
enum class Activation { identity, relu, gelu, gelu_tanh, silu, sigmoid, tanh, quick_gelu };

/// y = act(x). In float the relative error is below 4e-7 (below 2e-6 in the left tail of gelu, x <
/// −3), and results are finite for every finite x.
template <class T>
void activation_forward(Activation act, const T* x, std::type_identity_t<T>* y, Index n);
/// dx += dy · act'(x).
template <class T>
void activation_backward(Activation act, const T* x, const std::type_identity_t<T>* dy,
                         std::type_identity_t<T>* dx, Index n);

/// y = act(gate) · up: SwiGLU with silu, GEGLU with gelu (Shazeer 2020).
template <class T>
void swiglu_forward(Activation act, const T* gate, const std::type_identity_t<T>* up,
                    std::type_identity_t<T>* y, Index n);
/// dgate = dy · up · act'(gate), dup = dy · act(gate). Either may be null or lie where dy does.
template <class T>
void swiglu_backward(Activation act, const T* gate, const std::type_identity_t<T>* up,
                     const std::type_identity_t<T>* dy, std::type_identity_t<T>* dgate,
                     std::type_identity_t<T>* dup, Index n);
/// The same with gate and up in bf16.
GRAFT_KERNEL void swiglu_forward(Activation act, const std::uint16_t* gate, const std::uint16_t* up,
                                 float* y, Index n);
GRAFT_KERNEL void swiglu_backward(Activation act, const std::uint16_t* gate,
                                  const std::uint16_t* up, const float* dy, float* dgate,
                                  float* dup, Index n);

/// y(i, j) = e^x(i, j) / Σ_j e^x(i, j) for `rows` contiguous rows of n. A row of −∞ alone gives
/// zeros.
template <class T>
void softmax_forward(const T* x, std::type_identity_t<T>* y, Index rows, Index n);
/// dx += y · (dy − Σ_j y dy).
template <class T>
void softmax_backward(const T* y, const std::type_identity_t<T>* dy, std::type_identity_t<T>* dx,
                      Index rows, Index n);

}  // namespace graft::inline v0_1::kernels

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/kernels/impl/elementwise_impl.hpp"
#endif
