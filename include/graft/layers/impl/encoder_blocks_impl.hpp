#pragma once

#include <cmath>
#include <utility>

#include "graft/layers/encoder_blocks.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicVar<T> MultiHeadAttention<T>::operator()(const BasicVar<T>& x, const BasicVar<T>& keys,
                                              const EncoderPass<T>& pass,
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

template <std::floating_point T>
BasicVar<T> MultiHeadAttention<T>::operator()(const BasicVar<T>& x,
                                              const EncoderPass<T>& pass) const {
  AttentionOptions<T> options;
  options.causal = false;
  options.scale = static_cast<T>(1 / std::sqrt(static_cast<double>(site.head_dim)));
  return (*this)(x, x, pass, std::move(options));
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
template struct MultiHeadAttention<float>;
template struct MultiHeadAttention<double>;
#endif

}  // namespace graft::inline v0_1
