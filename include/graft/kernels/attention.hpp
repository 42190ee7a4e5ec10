#pragma once

#include "graft/kernels/isa.hpp"

namespace graft::kernels {

/// Sizes, operands and masks of one attention. Head h of the queries uses key/value head h / (heads / kv_heads).
template <class T>
struct AttentionArgs {
  Index batch, heads, kv_heads, q_len, kv_len, head_dim;
  Index v_head_dim = 0;  ///< 0: head_dim
  const T* q;            ///< row b · q_len + i, columns heads · head_dim
  Index ldq;
  const T* k;  ///< row b · kv_len + j, columns kv_heads · head_dim
  Index ldk;
  const T* v;  ///< row b · kv_len + j, columns kv_heads · v_head_dim
  Index ldv;
  T scale;       ///< multiplies q · k
  bool causal;   ///< key j is visible to query i iff j ≤ i + (kv_len − q_len)
  Index window;  ///< > 0: and j > i + (kv_len − q_len) − window
  const unsigned char* key_mask;  ///< [batch, kv_len], 1 = visible; null: all
  const T* bias;                  ///< added to the scores, [heads, q_len, kv_len]; null: none
  T softcap;                      ///< > 0: s becomes softcap · tanh(s / softcap)
};

/// out = softmax(scale · q kᵀ, masked) v for each head; lse(b, h, i) = log of the softmax's denominator, [batch, heads, q_len].
///
/// Runs over blocks of keys with a running maximum (Milakov & Gimelshein 2018; Dao et al. 2022): no q_len × kv_len matrix.
/// A query that sees no key gives 0 and −∞. The result does not depend on the number of threads. T = float or double.
template <class T>
void attention_forward(const AttentionArgs<T>& args, T* out, Index ldo, T* lse);

/// Adds the gradients of q, k and v, each of which may be null. `out` and `lse` are those of the forward pass.
template <class T>
void attention_backward(const AttentionArgs<T>& args, const T* out, Index ldo, const T* lse, const T* dout,
                        Index lddo, T* dq, Index lddq, T* dk, Index lddk, T* dv, Index lddv);

}  // namespace graft::kernels

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/kernels/impl/attention_impl.hpp"
#endif
