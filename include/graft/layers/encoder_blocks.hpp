#pragma once

#include <memory>
#include <vector>

#include "graft/autograd/ops/elementwise.hpp"
#include "graft/layers/sites.hpp"

namespace graft::inline v0_1 {

/// What the blocks of an encoder need to know of the pass that runs.
template <std::floating_point T>
struct EncoderPass {
  Index batch = 1;
  std::shared_ptr<const std::vector<unsigned char>> key_mask =
      nullptr;  ///< [batch, tokens], null: all visible
};

/// x through all blocks of an encoder, with the adapters of its stack. `Block` has
/// `attention_part(x, pass)` and `feed_forward_part(h, x)`, x the input of the block, one after the
/// other.
template <std::floating_point T, class Block>
BasicVar<T> run_encoder(const BasicStackSite<T>& stack,
                        const std::vector<std::unique_ptr<Block>>& list, BasicVar<T> x,
                        const EncoderPass<T>& pass) {
  if (stack.runs_blocks()) {
    std::vector<const Block*> blocks;
    for (const auto& block : list) blocks.push_back(block.get());
    const auto at = [blocks](Index l) -> const Block& {
      return *blocks[static_cast<std::size_t>(l)];
    };
    const auto of = [](const BlockTokens& tokens) {
      return EncoderPass<T>{tokens.batch, tokens.key_mask};
    };
    StackBlocks<T> functions;
    functions.count = std::ssize(list);
    functions.tokens = {pass.batch, pass.key_mask};
    functions.attention = [at, of](Index l, const BasicVar<T>& in, const BlockTokens& tokens) {
      return at(l).attention_part(in, of(tokens));
    };
    functions.feed_forward = [at](Index l, const BasicVar<T>& h, const BlockTokens&) {
      return at(l).feed_forward_part(h, h);
    };
    functions.block = [at, of](Index l, const BasicVar<T>& in, const BlockTokens& tokens) {
      return at(l).feed_forward_part(at(l).attention_part(in, of(tokens)), in);
    };
    return stack.run(x, functions);
  }
  for (Index l = 0; l < std::ssize(list); ++l) {
    const auto& block = *list[static_cast<std::size_t>(l)];
    x = stack.enter(l, x);
    x = block.feed_forward_part(block.attention_part(x, pass), x);
    stack.leave(l, x);
  }
  return x;
}

/// Attention of every query to every key (Vaswani et al. 2017), with separate query, key and value
/// layers.
template <std::floating_point T>
struct MultiHeadAttention {
  BasicLinearSite<T> query, key, value;
  BasicAttentionSite<T> site;

  /// Heads side by side, before any output layer. `keys` are the hidden states that keys and values
  /// come from.
  BasicVar<T> operator()(const BasicVar<T>& x, const BasicVar<T>& keys, const EncoderPass<T>& pass,
                         AttentionOptions<T> options) const;
  BasicVar<T> operator()(const BasicVar<T>& x, const EncoderPass<T>& pass) const;
};

/// down(act(up(x))).
template <std::floating_point T>
struct Mlp {
  BasicLinearSite<T> up, down;
  kernels::Activation activation = kernels::Activation::gelu;

  BasicVar<T> operator()(const BasicVar<T>& x) const {
    return down(graft::activation(activation, up(x)));
  }
};

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/layers/impl/encoder_blocks_impl.hpp"
#endif
