#pragma once

#include <cmath>
#include <memory>
#include <utility>
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

/// Attention of every query to every key (Vaswani et al. 2017), with separate query, key and value
/// layers.
template <std::floating_point T>
struct MultiHeadAttention {
  BasicLinearSite<T> query, key, value;
  BasicAttentionSite<T> site;

  /// Heads side by side, before any output layer. `keys` are the hidden states that keys and values
  /// come from.
  BasicVar<T> operator()(const BasicVar<T>& x, const BasicVar<T>& keys, const EncoderPass<T>& pass,
                         AttentionOptions<T> options) const {
    AttentionCall<T> call;
    call.input = x;
    call.q = query(x);
    call.k = key(keys);
    call.v = value(keys);
    call.key = &key;
    call.value = &value;
    call.options = std::move(options);
    call.options.batch = pass.batch;
    call.options.heads = site.heads;
    call.options.kv_heads = site.kv_heads;
    call.options.key_mask = pass.key_mask;
    return site(std::move(call));
  }
  BasicVar<T> operator()(const BasicVar<T>& x, const EncoderPass<T>& pass) const {
    AttentionOptions<T> options;
    options.causal = false;
    options.scale = static_cast<T>(1 / std::sqrt(static_cast<double>(site.head_dim)));
    return (*this)(x, x, pass, std::move(options));
  }
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
