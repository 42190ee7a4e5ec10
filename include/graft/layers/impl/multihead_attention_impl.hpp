#pragma once

#include <cmath>
#include <utility>

#include "graft/layers/multihead_attention.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicPackedAttention<T>::BasicPackedAttention(const std::string& path, Index heads,
                                              BasicTensor<T> in_weight, BasicTensor<T> in_bias,
                                              BasicTensor<T> out_weight, BasicTensor<T> out_bias)
    : in_proj(path, BasicDenseLinear<T>(std::move(in_weight), std::move(in_bias))),
      out_proj(path + ".base_layer.out_proj",
               BasicDenseLinear<T>(std::move(out_weight), std::move(out_bias))),
      heads_(heads) {
  const Index dim = in_proj.in_features();
  if (heads < 1 || dim % heads != 0 || in_proj.out_features() != 3 * dim ||
      out_proj.in_features() != dim || out_proj.out_features() != dim)
    throw ShapeError(concat("multi-head attention ", path, ": projections [",
                            in_proj.out_features(), ", ", dim, "] and [", out_proj.out_features(),
                            ", ", out_proj.in_features(), "] for ", heads, " heads"));
  out_proj.target_path = path;
  in_proj.plain_bias = false;
}

template <std::floating_point T>
BasicVar<T> BasicPackedAttention<T>::operator()(const BasicVar<T>& x, bool causal) const {
  const Index dim = in_proj.in_features();
  const auto qkv = reshape(in_proj(x), {x.rows(), 3 * dim});
  return attend(slice(qkv, 1, 0, dim), slice(qkv, 1, dim, dim), slice(qkv, 1, 2 * dim, dim),
                x.shape(), causal);
}

template <std::floating_point T>
BasicVar<T> BasicPackedAttention<T>::operator()(const BasicVar<T>& query,
                                                const BasicVar<T>& memory) const {
  const Index dim = in_proj.in_features();
  const auto q = slice(reshape(in_proj(query), {query.rows(), 3 * dim}), 1, 0, dim);
  const auto kv = reshape(in_proj(memory), {memory.rows(), 3 * dim});
  return attend(q, slice(kv, 1, dim, dim), slice(kv, 1, 2 * dim, dim), query.shape(), false);
}

template <std::floating_point T>
BasicVar<T> BasicPackedAttention<T>::attend(const BasicVar<T>& q, const BasicVar<T>& k,
                                            const BasicVar<T>& v, const Shape& shape,
                                            bool causal) const {
  AttentionOptions<T> options;
  options.batch = shape[0];
  options.heads = options.kv_heads = heads_;
  options.causal = causal;
  options.scale =
      static_cast<T>(1 / std::sqrt(static_cast<double>(in_proj.in_features() / heads_)));
  return reshape(out_proj(attention(q, k, v, options)), shape);
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
template class BasicPackedAttention<float>;
template class BasicPackedAttention<double>;
#endif

}  // namespace graft::inline v0_1
