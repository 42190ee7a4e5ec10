#pragma once

#include <type_traits>

#include "graft/kernels/frozen_weight.hpp"
#include "graft/kernels/isa.hpp"

namespace graft::inline v0_1::kernels {

/// Sizes, operands and masks of one attention. Head h of the queries uses key/value head h / (heads
/// / kv_heads); heads must be a multiple of kv_heads.
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
  T scale;                        ///< multiplies q · k
  bool causal;                    ///< key j is visible to query i iff j ≤ i + (kv_len − q_len)
  Index window;                   ///< > 0: and j > i + (kv_len − q_len) − window, causal or not
  const unsigned char* key_mask;  ///< [batch, kv_len], 1 = visible; null: all
  const T* bias;  ///< added to the scores, after the cap, [heads, q_len, kv_len]; null: none
  T softcap;      ///< > 0: s becomes softcap · tanh(s / softcap)
  /// Compute::bf16: operands of the products of blocks are rounded to bf16, with f32 sums, where
  /// the processor has that fast (f32 elsewhere, in double, and for up to 8 queries of a key/value
  /// head); the other ways are those of f32.
  Compute compute = Compute::f32;
};

/// out = softmax(scale · q kᵀ, masked) v for each head; lse(b, h, i) = log of the softmax's
/// denominator, [batch, heads, q_len], which the backward pass needs; may be null.
///
/// Runs over blocks of keys with a running maximum (Milakov and Gimelshein 2018; Dao et al. 2022):
/// there is never a q_len × kv_len matrix. A query that sees no key gives 0 and −∞. The result does
/// not depend on the number of threads. T = float or double.
template <class T>
void attention_forward(const AttentionArgs<T>& args, std::type_identity_t<T>* out, Index ldo,
                       std::type_identity_t<T>* lse);

/// Adds the gradients of q, k, v and the bias, each of which may be null; dbias [heads, q_len,
/// kv_len] is a sum over the batch. `out` and `lse` are those of the forward pass, dout the
/// gradient of out.
template <class T>
void attention_backward(const AttentionArgs<T>& args, const std::type_identity_t<T>* out, Index ldo,
                        const std::type_identity_t<T>* lse, const std::type_identity_t<T>* dout,
                        Index lddo, std::type_identity_t<T>* dq, Index lddq,
                        std::type_identity_t<T>* dk, Index lddk, std::type_identity_t<T>* dv,
                        Index lddv, std::type_identity_t<T>* dbias = nullptr);

}  // namespace graft::inline v0_1::kernels

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/kernels/impl/attention_impl.hpp"
#endif
