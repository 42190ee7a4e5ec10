#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "graft/autograd/ops/loss.hpp"
#include "graft/layers/sites/row_groups.hpp"
#include "graft/layers/sites/site_adapters.hpp"

namespace graft::inline v0_1 {

/// Adapter of a prompt site behind type erasure.
template <std::floating_point T>
class PromptAdapterInterface {
 public:
  virtual ~PromptAdapterInterface() = default;
  virtual Index virtual_tokens() const = 0;
  /// The same for a batch that has visual tokens of its own, or none.
  virtual Index tokens_with(bool /*visual*/) const { return virtual_tokens(); }
  /// Embeddings of the virtual tokens for each row of the batch: [batch, virtual_tokens, dim].
  virtual BasicVar<T> prompt(BasicTape<T>& tape, Index batch,
                             const ForwardContext& context) const = 0;
  /// The same for the decoder of an encoder-decoder model; empty: its input stays as it is.
  virtual BasicVar<T> decoder_prompt(BasicTape<T>&, Index, const ForwardContext&) const {
    return {};
  }
  /// Whether the last virtual token has to predict the first one of the text.
  virtual bool predicts() const { return true; }
  /// May change what is to be predicted: labels [batch, virtual_tokens + tokens], those of virtual
  /// tokens -100 so far, and the factor of the loss of each (empty: one).
  virtual void change_labels(Index, std::span<std::int64_t>, std::vector<T>&) const {}
};

/// Where virtual tokens enter: between the embedding and the first block, in front of the tokens of
/// the model or behind the first ones of them (a class token). Kind `embedding`.
template <std::floating_point T>
class BasicPromptSite : public SiteAdapters<PromptAdapterInterface<T>> {
 public:
  using Scalar = T;

  BasicPromptSite() = default;
  BasicPromptSite(std::string path, Index dim, Index in_front = 0)
      : SiteAdapters<PromptAdapterInterface<T>>(std::move(path)), dim_(dim), in_front_(in_front) {}
  Index dim() const { return dim_; }
  /// Tokens of the model that stay before the virtual ones.
  Index in_front() const { return in_front_; }
  /// Virtual tokens of the active adapter.
  Index virtual_tokens() const { return tokens_of(this->last()); }
  /// The same for each row of a batch whose rows name their adapters (or not). Rows with fewer than
  /// others are filled up in front with tokens that nothing may look at.
  std::vector<Index> virtual_tokens(const std::vector<std::string>& row_adapters, Index batch,
                                    bool visual = false) const;
  /// x: [batch, tokens, dim] -> [batch, virtual_tokens + tokens, dim].
  BasicVar<T> operator()(const BasicVar<T>& x, const ForwardContext& context) const {
    if (this->runs_by_row(&context)) return by_row(x, context);
    if (tokens_of(this->last(), !context.visual.empty()) == 0) return x;
    return joined(x, {this->last()->prompt(x.tape(), x.dim(0), context)});
  }
  /// The same in front of a decoder, for the adapters that have something to put there.
  /// @throws ValueError if the rows of the batch name their adapters and one of them has
  BasicVar<T> before_decoder(const BasicVar<T>& x, const ForwardContext& context) const;
  void change_labels(Index batch, std::span<std::int64_t> labels, std::vector<T>& weights,
                     const std::vector<std::string>& row_adapters = {}, bool visual = false) const;

 private:
  using Interface = PromptAdapterInterface<T>;

  static Index tokens_of(const Interface* adapter) {
    return adapter == nullptr ? 0 : adapter->virtual_tokens();
  }
  static Index tokens_of(const Interface* adapter, bool visual) {
    return adapter == nullptr ? 0 : adapter->tokens_with(visual);
  }
  static void change(const Interface& adapter, Index batch, std::span<std::int64_t> labels,
                     std::vector<T>& weights, bool visual);
  /// x with others at their place.
  BasicVar<T> joined(const BasicVar<T>& x, std::vector<BasicVar<T>> others) const {
    if (in_front_ > 0) others.insert(others.begin(), slice(x, 1, 0, in_front_));
    others.push_back(in_front_ > 0 ? slice(x, 1, in_front_, x.dim(1) - in_front_) : x);
    return concat_along(1, others);
  }
  const Interface* alone(const std::string& name) const {
    for (const auto& named : this->adapters())
      if (named.name == name) return named.adapter.get();
    return nullptr;
  }
  BasicVar<T> by_row(const BasicVar<T>& x, const ForwardContext& context) const;

  Index dim_ = 0, in_front_ = 0;
};

using PromptSite = BasicPromptSite<float>;

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/layers/sites/impl/prompt_site_impl.hpp"
#endif
