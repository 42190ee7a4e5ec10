#pragma once

#include <memory>
#include <string>
#include <utility>
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
                     Index head_width, AttentionRole reads = AttentionRole::self)
      : SiteAdapters<AttentionAdapterInterface<T>>(std::move(path)),
        layer(layer_number),
        heads(query_heads),
        kv_heads(key_value_heads),
        head_dim(head_width),
        role(reads) {}
  Index layer = 0, heads = 1, kv_heads = 1, head_dim = 1;
  AttentionRole role = AttentionRole::self;
  kernels::Compute compute = kernels::Compute::f32;  ///< of the products of queries, keys, values
  /// Keys of the active adapters before those of the text.
  Index virtual_keys() const { return keys_of(this->chain()); }
  /// The same for each row of a batch.
  std::vector<Index> virtual_keys(const ForwardContext* context, Index batch) const {
    const auto size = static_cast<std::size_t>(batch);
    if (this->adapters().empty()) return std::vector<Index>(size, 0);
    if (this->runs_one(context))
      return std::vector<Index>(size, keys_of(this->chain_of(*context->only)));
    std::vector<Index> keys(size, keys_of(this->chain()));
    if (this->runs_by_row(context) && context->row_adapters.size() == size)
      for (std::size_t row = 0; row < size; ++row)
        keys[row] = keys_of(this->chain_of(context->row_adapters[row]));
    return keys;
  }
  BasicVar<T> operator()(AttentionCall<T> call) const {
    call.options.compute = compute;
    const auto* context = call.q.tape().template context<ForwardContext>();
    if (this->runs_by_row(context)) return by_row(call, *context);
    return this->runs_one(context) ? run(call, this->chain_of(*context->only))
                                   : run(call, this->chain());
  }

 private:
  using Chain = typename SiteAdapters<AttentionAdapterInterface<T>>::Chain;

  static Index keys_of(const Chain& chain) {
    Index count = 0;
    for (const auto& adapter : chain) count += adapter->virtual_keys();
    return count;
  }
  static BasicVar<T> attend(AttentionCall<T>& call, const Chain& chain) {
    for (const auto& adapter : chain) adapter->before(call);
    auto out = attention(call.q, call.k, call.v, call.options);
    for (const auto& adapter : chain) out = adapter->after(call, out);
    return out;
  }
  static BasicVar<T> run(AttentionCall<T>& call, const Chain& chain) {
    auto out = attend(call, chain);
    if (call.output == nullptr) return out;
    out = (*call.output)(out);
    for (const auto& adapter : chain) out = adapter->projected(call, out);
    return out;
  }
  /// One attention per adapter that occurs in the batch; the output layer, which may have adapters
  /// of its own, sees all rows.
  BasicVar<T> by_row(const AttentionCall<T>& call, const ForwardContext& context) const {
    const RowGroups groups(context, this->path(), call.q.rows());
    auto& tape = call.q.tape();
    std::vector<AttentionCall<T>> calls;
    const auto rows_of = [&](const BasicVar<T>& x, const RowGroups::Group& group) {
      const auto part = groups.part(x, group);
      return reshape(part, {part.rows(), part.cols()});
    };
    auto parts = groups.each(tape, context, [&](const RowGroups::Group& group) {
      auto own = call;
      if (call.input) own.input = rows_of(call.input, group);
      own.q = rows_of(call.q, group);
      own.k = rows_of(call.k, group);
      own.v = rows_of(call.v, group);
      own.options.batch = std::ssize(group.rows);
      if (call.options.key_mask) {
        const auto& mask = *call.options.key_mask;
        const auto width = std::ssize(mask) / context.batch;
        std::vector<unsigned char> some;
        for (const Index row : group.rows)
          some.insert(some.end(), mask.begin() + row * width, mask.begin() + (row + 1) * width);
        own.options.key_mask = std::make_shared<std::vector<unsigned char>>(std::move(some));
      }
      auto out = attend(own, this->chain_of(group.name));
      calls.push_back(std::move(own));
      return reshape(out,
                     {std::ssize(group.rows), out.rows() / std::ssize(group.rows), out.cols()});
    });
    const Index width = parts.front().cols();
    auto out = groups.joined(std::move(parts), call.q.shape().with_last(width));
    if (call.output == nullptr) return out;
    out = (*call.output)(out);
    std::size_t next = 0;
    auto projected = groups.each(tape, context, [&](const RowGroups::Group& group) {
      auto part = rows_of(out, group);
      for (const auto& adapter : this->chain_of(group.name))
        part = adapter->projected(calls[next], part);
      ++next;
      return reshape(part,
                     {std::ssize(group.rows), part.rows() / std::ssize(group.rows), part.cols()});
    });
    return groups.joined(std::move(projected), out.shape());
  }
};

using AttentionSite = BasicAttentionSite<float>;

}  // namespace graft::inline v0_1
