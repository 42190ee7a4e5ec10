#pragma once

#include <array>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "graft/autograd/ops/elementwise.hpp"
#include "graft/autograd/ops/rotary.hpp"
#include "graft/layers/kv_cache.hpp"
#include "graft/layers/rope.hpp"
#include "graft/layers/sites.hpp"

namespace graft::inline v0_1 {

/// What the blocks of a decoder need to know of the pass that runs.
template <std::floating_point T>
struct DecoderPass {
  Index batch = 1;
  Index tokens = 1;  ///< a row, virtual ones included
  std::shared_ptr<const std::vector<unsigned char>> key_mask =
      nullptr;                       ///< [batch, tokens], null: all visible
  BasicKvCache<T>* cache = nullptr;  ///< generation: keys and values so far
  Index first_position = 0;
  /// Tokens that fill each row up in front, where rows have different numbers of virtual tokens;
  /// they have no position. Empty: none.
  std::vector<Index> fill = {};
  /// As in BlockTokens.
  std::vector<Index> positions = {};

  /// The same for other tokens.
  DecoderPass on(const BlockTokens& tokens_of, Index rows) const;
  /// Position of the first token of each row; fillers before position 0 have negative ones. Rows
  /// start after the keys that adapters of `site` put before them.
  std::vector<Index> first_positions(const BasicAttentionSite<T>& site,
                                     const ForwardContext* context) const;
};

/// Causal self-attention with rotary positions and grouped key/value heads (LLaMA, Qwen, Gemma).
///
/// Linear sites q_proj, k_proj, v_proj, o_proj, one attention site, optional norms over each head
/// of q and k.
template <std::floating_point T>
struct RotaryAttention {
  BasicLinearSite<T> q_proj, k_proj, v_proj, o_proj;
  BasicNormSite<T> q_norm, k_norm;
  bool head_norm = false;
  BasicAttentionSite<T> site;
  T scale = 1;
  Index window = 0;
  T softcap = 0;

  BasicVar<T> operator()(const BasicVar<T>& x, const DecoderPass<T>& pass,
                         const BasicRope<T>& rope) const;

 private:
  const typename BasicRope<T>::Tables& rope_tables(const BasicRope<T>& rope,
                                                   const DecoderPass<T>& pass,
                                                   const ForwardContext* context) const;
  static BasicVar<T> per_head(const BasicNormSite<T>& norm, const BasicVar<T>& x, Index heads) {
    return reshape(norm(reshape(x, {x.rows() * heads, x.cols() / heads})), x.shape());
  }
};

/// down(act(gate(x)) ⊙ up(x)) (Shazeer 2020).
template <std::floating_point T>
struct GatedMlp {
  BasicLinearSite<T> gate_proj, up_proj, down_proj;
  kernels::Activation activation = kernels::Activation::silu;

  /// `ends_block`: the block does nothing more with the result than to add it.
  BasicVar<T> operator()(const BasicVar<T>& x, bool ends_block = false) const {
    const auto parts = apply_each(x, std::array{&gate_proj, &up_proj});
    const auto h = gated(activation, parts[0], parts[1]);
    return ends_block ? down_proj.last(h) : down_proj(h);
  }
};

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/layers/impl/decoder_blocks_impl.hpp"
#endif
