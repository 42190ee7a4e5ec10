#pragma once

#include "graft/autograd/ops/common.hpp"
#include "graft/kernels/norm.hpp"

namespace graft::inline v0_1 {

/// y = x / sqrt(mean(x²) + eps) ⊙ (weight + weight_offset) along the last axis (Zhang & Sennrich
/// 2019). Gemma stores weight - 1: weight_offset 1. An empty `weight` counts as ones.
template <std::floating_point T>
BasicVar<T> rms_norm(const BasicVar<T>& x, const BasicVar<T>& weight, std::type_identity_t<T> eps,
                     std::type_identity_t<T> weight_offset = 0);

/// y = (x - mean) / sqrt(var + eps) ⊙ weight + bias along the last axis (Ba et al. 2016); empty
/// weight, bias: none.
template <std::floating_point T>
BasicVar<T> layer_norm(const BasicVar<T>& x, const BasicVar<T>& weight, const BasicVar<T>& bias,
                       std::type_identity_t<T> eps);

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/autograd/ops/impl/norm_impl.hpp"
#endif
