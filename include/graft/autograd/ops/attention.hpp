#pragma once

#include <memory>
#include <vector>

#include "graft/autograd/ops/common.hpp"
#include "graft/kernels/attention.hpp"

namespace graft::inline v0_1 {

/// Sizes and masks of one attention: out = softmax(scale · q kᵀ + masks) v for each head (Vaswani
/// et al. 2017), grouped queries (Ainslie et al. 2023) if kv_heads < heads.
template <std::floating_point T>
struct AttentionOptions {
  Index batch = 1;
  Index heads = 1;
  Index kv_heads = 1;
  T scale = 1;
  bool causal = true;  ///< key j is visible to query i iff j <= i + (kv_len - q_len)
  Index window = 0;    ///< > 0: and j > i + (kv_len - q_len) - window
  std::shared_ptr<const std::vector<unsigned char>>
      key_mask;      ///< [batch, kv_len], 1 = visible; null: all
  BasicVar<T> bias;  ///< added to the scores, [heads, q_len, kv_len]; may be empty
  T softcap = 0;     ///< > 0: scores s become softcap · tanh(s / softcap)
  kernels::Compute compute = kernels::Compute::f32;  ///< kernels::AttentionArgs::compute
};

/// q: [batch · q_len, heads · d], k: [batch · kv_len, kv_heads · d], v: [batch · kv_len, kv_heads ·
/// e] with any leading axes; returns [batch · q_len, heads · e] with q's leading axes. Keeps q, k,
/// v, the result and one number per row and head; never a q_len × kv_len matrix (Dao et al. 2022).
/// @throws ShapeError
template <std::floating_point T>
BasicVar<T> attention(const BasicVar<T>& q, const BasicVar<T>& k, const BasicVar<T>& v,
                      const AttentionOptions<T>& options);

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/autograd/ops/impl/attention_impl.hpp"
#endif
