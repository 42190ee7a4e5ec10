#pragma once

#include <string>
#include <vector>

#include "graft/autograd/ops/attention.hpp"
#include "graft/layers/sites/linear_site.hpp"

namespace graft::inline v0_1 {

/// One attention while it runs: queries, keys and values (after rotation) and its options.
template <std::floating_point T>
struct AttentionCall {
  BasicVar<T> input;  ///< hidden state that q, k, v were computed from, [batch · q_len, hidden]
  BasicVar<T> q, k, v;
  AttentionOptions<T> options;
  /// The layers that make keys and values of a hidden state, apart or with the queries in one
  /// (`fused`), and the one that the result goes through; null where the caller does not say. With
  /// `output`, the attention site applies it.
  const BasicLinearSite<T>* key = nullptr;
  const BasicLinearSite<T>* value = nullptr;
  const BasicLinearSite<T>* fused = nullptr;
  const BasicLinearSite<T>* output = nullptr;
};

/// Adapter of an attention site behind type erasure.
template <std::floating_point T>
class AttentionAdapterInterface {
 public:
  virtual ~AttentionAdapterInterface() = default;
  /// May replace keys, values, masks before the attention.
  virtual void before(AttentionCall<T>&) const {}
  /// May change the result (heads side by side, before the output projection).
  virtual BasicVar<T> after(const AttentionCall<T>&, BasicVar<T> out) const { return out; }
  /// May change what the output projection made of the result.
  virtual BasicVar<T> projected(const AttentionCall<T>&, BasicVar<T> out) const { return out; }
  /// Number of keys that `before` puts in front of those of the text.
  virtual Index virtual_keys() const { return 0; }
};

/// What an attention reads.
enum class AttentionRole {
  self,     ///< its own tokens, in the stack that makes the output
  encoder,  ///< its own tokens, in the encoder before a decoder
  cross,    ///< what an encoder made
};

/// The attention of a block. Kind `attention`: prefixes, gated prompts.
template <std::floating_point T>
class BasicAttentionSite : public SiteAdapters<AttentionAdapterInterface<T>> {
 public:
  using Scalar = T;

  BasicAttentionSite() = default;
  BasicAttentionSite(std::string path, Index layer_number, Index query_heads, Index key_value_heads,
                     Index head_width, AttentionRole reads = AttentionRole::self);
  Index layer = 0, heads = 1, kv_heads = 1, head_dim = 1;
  AttentionRole role = AttentionRole::self;
  kernels::Compute compute = kernels::Compute::f32;  ///< of the products of queries, keys, values
  /// Keys of the active adapters before those of the text.
  Index virtual_keys() const { return keys_of(this->chain()); }
  /// The same for each row of a batch.
  std::vector<Index> virtual_keys(const ForwardContext* context, Index batch) const;
  BasicVar<T> operator()(AttentionCall<T> call) const;

 private:
  using Chain = typename SiteAdapters<AttentionAdapterInterface<T>>::Chain;

  static Index keys_of(const Chain& chain) {
    Index count = 0;
    for (const auto& adapter : chain) count += adapter->virtual_keys();
    return count;
  }
  static BasicVar<T> attend(AttentionCall<T>& call, const Chain& chain);
  static BasicVar<T> run(AttentionCall<T>& call, const Chain& chain);
  /// One attention per adapter that occurs in the batch; the output layer, which may have adapters
  /// of its own, sees all rows.
  BasicVar<T> by_row(const AttentionCall<T>& call, const ForwardContext& context) const;
};

using AttentionSite = BasicAttentionSite<float>;

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/layers/sites/impl/attention_site_impl.hpp"
#endif
