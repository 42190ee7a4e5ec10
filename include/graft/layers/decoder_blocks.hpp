#pragma once

#include <array>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
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
  DecoderPass on(const BlockTokens& tokens_of, Index rows) const {
    auto pass = *this;
    pass.batch = tokens_of.batch;
    pass.tokens = rows / tokens_of.batch;
    pass.key_mask = tokens_of.key_mask;
    pass.fill = tokens_of.fill;
    pass.positions = tokens_of.positions;
    return pass;
  }
  /// Position of the first token of each row; fillers before position 0 have negative ones. Rows
  /// start after the keys that adapters of `site` put before them.
  std::vector<Index> first_positions(const BasicAttentionSite<T>& site,
                                     const ForwardContext* context) const {
    auto first = site.virtual_keys(context, batch);
    for (std::size_t row = 0; row < first.size(); ++row)
      first[row] += first_position - (fill.empty() ? 0 : fill[row]);
    return first;
  }
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
                         const BasicRope<T>& rope) const {
    AttentionCall<T> call;
    call.input = x;
    auto projected = apply_each(x, std::array{&q_proj, &k_proj, &v_proj});
    call.q = std::move(projected[0]);
    call.k = std::move(projected[1]);
    call.v = std::move(projected[2]);
    if (head_norm) {
      call.q = per_head(q_norm, call.q, site.heads);
      call.k = per_head(k_norm, call.k, site.kv_heads);
    }
    const auto* context = x.tape().template context<ForwardContext>();
    const auto& tables = rope_tables(rope, pass, context);
    call.q = rotary(call.q, site.heads, tables.cos, tables.sin);
    call.k = rotary(call.k, site.kv_heads, tables.cos, tables.sin);
    if (pass.cache != nullptr)
      std::tie(call.k, call.v) = pass.cache->extend(site.layer, call.k, call.v);
    call.options.batch = pass.batch;
    call.options.heads = site.heads;
    call.options.kv_heads = site.kv_heads;
    call.options.scale = scale;
    call.options.window = window;
    call.options.softcap = softcap;
    call.options.key_mask = pass.key_mask;
    call.key = &k_proj;
    call.value = &v_proj;
    call.output = &o_proj;
    return site(std::move(call));
  }

 private:
  const typename BasicRope<T>::Tables& rope_tables(const BasicRope<T>& rope,
                                                   const DecoderPass<T>& pass,
                                                   const ForwardContext* context) const {
    const auto first = pass.first_positions(site, context);
    if (pass.positions.empty()) return rope.tables(first, pass.tokens);
    if (window > 0)
      throw ValueError(concat(site.path(), ": attention with a window cannot leave out tokens"));
    auto each = pass.positions;
    for (std::size_t i = 0; i < each.size(); ++i)
      each[i] += first[i / static_cast<std::size_t>(pass.tokens)];
    return rope.tables(each, 1);
  }
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
