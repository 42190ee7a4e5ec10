#pragma once

#include <cmath>
#include <string>
#include <utility>

#include "graft/autograd/ops/attention.hpp"
#include "graft/layers/dense_linear.hpp"
#include "graft/layers/sites/linear_site.hpp"

namespace graft::inline v0_1 {

/// Multi-head attention with one packed input projection, as torch's nn.MultiheadAttention with
/// batch_first and equal widths of query, key and value:
/// softmax(q kᵀ / √(dim / heads)) v by head, then the output projection.
///
/// Two linear sites: the packed projection [3 dim, dim] (rows of query, key, value one after the
/// other) has the path of the module; the output projection is meant together with it and has its
/// tensors below "base_layer.out_proj", as Hugging Face PEFT names them. An adapter with bias =
/// "all" or "…_only" trains the bias of the output projection alone, as there: the other's name is
/// in_proj_bias. Not movable: sites keep their addresses.
template <std::floating_point T>
class BasicPackedAttention {
 public:
  /// in_weight [3 dim, dim], in_bias [3 dim] or empty, out_weight [dim, dim], out_bias [dim] or
  /// empty. @throws ShapeError for other shapes or a width that `heads` does not divide.
  BasicPackedAttention(const std::string& path, Index heads, BasicTensor<T> in_weight,
                       BasicTensor<T> in_bias, BasicTensor<T> out_weight, BasicTensor<T> out_bias)
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
  BasicPackedAttention(const BasicPackedAttention&) = delete;
  BasicPackedAttention& operator=(const BasicPackedAttention&) = delete;

  Index heads() const { return heads_; }

  /// Self-attention. x: [batch, tokens, dim].
  BasicVar<T> operator()(const BasicVar<T>& x, bool causal = false) const {
    const Index dim = in_proj.in_features();
    const auto qkv = reshape(in_proj(x), {x.rows(), 3 * dim});
    return attend(slice(qkv, 1, 0, dim), slice(qkv, 1, dim, dim), slice(qkv, 1, 2 * dim, dim),
                  x.shape(), causal);
  }
  /// Attention of `query` [batch, tokens, dim] over `memory` [batch, keys, dim].
  BasicVar<T> operator()(const BasicVar<T>& query, const BasicVar<T>& memory) const {
    const Index dim = in_proj.in_features();
    const auto q = slice(reshape(in_proj(query), {query.rows(), 3 * dim}), 1, 0, dim);
    const auto kv = reshape(in_proj(memory), {memory.rows(), 3 * dim});
    return attend(q, slice(kv, 1, dim, dim), slice(kv, 1, 2 * dim, dim), query.shape(), false);
  }

  BasicLinearSite<T> in_proj;
  BasicLinearSite<T> out_proj;

 private:
  BasicVar<T> attend(const BasicVar<T>& q, const BasicVar<T>& k, const BasicVar<T>& v,
                     const Shape& shape, bool causal) const {
    AttentionOptions<T> options;
    options.batch = shape[0];
    options.heads = options.kv_heads = heads_;
    options.causal = causal;
    options.scale =
        static_cast<T>(1 / std::sqrt(static_cast<double>(in_proj.in_features() / heads_)));
    return reshape(out_proj(attention(q, k, v, options)), shape);
  }

  Index heads_ = 1;
};

using PackedAttention = BasicPackedAttention<float>;

}  // namespace graft::inline v0_1
