#pragma once

#include <utility>

#include "graft/layers/decoder_blocks.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
DecoderPass<T> DecoderPass<T>::on(const BlockTokens& tokens_of, Index rows) const {
  auto pass = *this;
  pass.batch = tokens_of.batch;
  pass.tokens = rows / tokens_of.batch;
  pass.key_mask = tokens_of.key_mask;
  pass.fill = tokens_of.fill;
  pass.positions = tokens_of.positions;
  return pass;
}

template <std::floating_point T>
std::vector<Index> DecoderPass<T>::first_positions(const BasicAttentionSite<T>& site,
                                                   const ForwardContext* context) const {
  auto first = site.virtual_keys(context, batch);
  for (std::size_t row = 0; row < first.size(); ++row)
    first[row] += first_position - (fill.empty() ? 0 : fill[row]);
  return first;
}

template <std::floating_point T>
BasicVar<T> RotaryAttention<T>::operator()(const BasicVar<T>& x, const DecoderPass<T>& pass,
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

template <std::floating_point T>
const typename BasicRope<T>::Tables& RotaryAttention<T>::rope_tables(
    const BasicRope<T>& rope, const DecoderPass<T>& pass, const ForwardContext* context) const {
  const auto first = pass.first_positions(site, context);
  if (pass.positions.empty()) return rope.tables(first, pass.tokens);
  if (window > 0)
    throw ValueError(concat(site.path(), ": attention with a window cannot leave out tokens"));
  auto each = pass.positions;
  for (std::size_t i = 0; i < each.size(); ++i)
    each[i] += first[i / static_cast<std::size_t>(pass.tokens)];
  return rope.tables(each, 1);
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
template struct DecoderPass<float>;
template struct DecoderPass<double>;
template struct RotaryAttention<float>;
template struct RotaryAttention<double>;
#endif

}  // namespace graft::inline v0_1
