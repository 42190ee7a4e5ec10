#pragma once

#include <cstdint>
#include <vector>

#include "graft/autograd/ops/common.hpp"

namespace graft::inline v0_1 {

/// The k largest of n numbers, largest first; equal ones in the order of their places.
template <std::floating_point T>
std::vector<std::int32_t> largest(const T* values, Index n, Index k);

/// For every row z of the logits: Σ_t w_t bank_t over the k largest logits, w = softmax of those.
/// logits: [..., h], bank: [h, length], result [..., length]. The choice itself has no gradient.
/// @throws ShapeError if the sizes do not fit, ValueError unless 1 ≤ k ≤ h.
template <std::floating_point T>
BasicVar<T> topk_mixture(const BasicVar<T>& logits, const BasicVar<T>& bank, Index k);

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/autograd/ops/impl/topk_mixture_impl.hpp"
#endif
