#pragma once

#include <type_traits>

#include "graft/kernels/isa.hpp"

namespace graft::inline v0_1::kernels {

/// Which elements of a head form a pair: d and d + rotary_dim / 2 (Llama, Gemma, Qwen), or 2 d and
/// 2 d + 1 (GPT-J).
enum class RotaryStyle { half, interleaved };

/// Rotary position embedding (Su et al. 2021): y is x, but every pair (u, v) of the first
/// rotary_dim elements of each head becomes (u cos − v sin, v cos + u sin), or the inverse rotation
/// where `inverse` is set (the gradient).
///
/// x, y: rows of heads · head_dim values at distance ld; y may be x. cos, sin: [rows, rotary_dim /
/// 2], a row for each row of x. T = float or double.
template <class T>
void rotary(const T* x, std::type_identity_t<T>* y, Index rows, Index heads, Index head_dim,
            Index ld, const std::type_identity_t<T>* cos, const std::type_identity_t<T>* sin,
            Index rotary_dim, RotaryStyle style, bool inverse);

}  // namespace graft::inline v0_1::kernels

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/kernels/impl/rotary_impl.hpp"
#endif
