#pragma once

#include <string>

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
                       BasicTensor<T> in_bias, BasicTensor<T> out_weight, BasicTensor<T> out_bias);
  BasicPackedAttention(const BasicPackedAttention&) = delete;
  BasicPackedAttention& operator=(const BasicPackedAttention&) = delete;

  Index heads() const { return heads_; }

  /// Self-attention. x: [batch, tokens, dim].
  BasicVar<T> operator()(const BasicVar<T>& x, bool causal = false) const;
  /// Attention of `query` [batch, tokens, dim] over `memory` [batch, keys, dim].
  BasicVar<T> operator()(const BasicVar<T>& query, const BasicVar<T>& memory) const;

  BasicLinearSite<T> in_proj;
  BasicLinearSite<T> out_proj;

 private:
  BasicVar<T> attend(const BasicVar<T>& q, const BasicVar<T>& k, const BasicVar<T>& v,
                     const Shape& shape, bool causal) const;

  Index heads_ = 1;
};

using PackedAttention = BasicPackedAttention<float>;

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/layers/impl/multihead_attention_impl.hpp"
#endif
