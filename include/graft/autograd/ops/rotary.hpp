#pragma once

#include "graft/autograd/ops/common.hpp"
#include "graft/kernels/rotary.hpp"

namespace graft::inline v0_1 {

/// Rotates pairs of each head's elements by angles that grow with the position (Su et al. 2021).
/// x: [tokens, heads · head_dim]; `cos`, `sin`: [tokens, rotary_dim / 2], frozen.
template <std::floating_point T>
BasicVar<T> rotary(const BasicVar<T>& x, Index heads, const BasicTensor<T>& cos,
                   const BasicTensor<T>& sin,
                   kernels::RotaryStyle style = kernels::RotaryStyle::half);

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/autograd/ops/impl/rotary_impl.hpp"
#endif
