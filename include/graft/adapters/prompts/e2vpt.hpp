#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/prompts/prefix_tuning.hpp"
#include "graft/adapters/prompts/vpt.hpp"
#include "graft/base/order.hpp"

namespace graft::inline v0_1 {

/// Configuration of E²VPT.
struct E2vptConfig {
  Index num_tokens = 5;
  Index num_key_value_tokens = 5;
  Index num_segments = 16;       ///< of a token, which pruning takes or leaves
  bool shared_key_value = true;  ///< one table for keys and values
  double prune_percent = 0;      ///< of the tokens and of the segments of each

  static constexpr const char* kPeftType = "E2VPT";

  template <class Visitor>
  void fields(Visitor& v) {
    v("num_tokens", num_tokens);
    v("num_key_value_tokens", num_key_value_tokens);
    v("num_segments", num_segments);
    v("shared_key_value", shared_key_value);
    v("prune_percent", prune_percent);
  }
  /// @throws ValueError for a size below 1 or a percentage out of its range.
  void validate() const {
    if (num_tokens < 1 || num_key_value_tokens < 1 || num_segments < 1)
      throw ValueError(concat("E2VPT: num_tokens ", num_tokens, ", num_key_value_tokens ",
                              num_key_value_tokens, ", num_segments ", num_segments,
                              ", expected at least 1"));
    if (!(prune_percent >= 0 && prune_percent <= 100))
      throw ValueError(concat("E2VPT: prune_percent ", prune_percent, ", expected 0 … 100"));
  }
};

/// What stays of the prompts, zeros and ones.
template <std::floating_point T>
struct PromptMasks {
  BasicTensor<T> token;    ///< [tokens]
  BasicTensor<T> segment;  ///< [tokens, segments]
};

/// Importance of tokens and segments: |gradient of the loss by their masks|, the mean over batches.
template <std::floating_point T>
class PromptScores {
 public:
  /// Gradients of one batch: [tokens] and [tokens, segments].
  void add(const BasicTensor<T>& token, const BasicTensor<T>& segment) {
    if (batches_ == 0) {
      token_ = BasicTensor<T>::zeros(token.shape());
      segment_ = BasicTensor<T>::zeros(segment.shape());
    }
    if (token.shape() != token_.shape() || segment.shape() != segment_.shape())
      throw ShapeError(concat("prompt scores: gradients ", token.shape().text(), " and ",
                              segment.shape().text(), ", expected ", token_.shape().text(), " and ",
                              segment_.shape().text()));
    for (Index i = 0; i < token.size(); ++i) token_[i] += std::abs(token[i]);
    for (Index i = 0; i < segment.size(); ++i) segment_[i] += std::abs(segment[i]);
    ++batches_;
  }
  BasicTensor<T> token() const { return mean(token_); }
  BasicTensor<T> segment() const { return mean(segment_); }

 private:
  BasicTensor<T> mean(const BasicTensor<T>& total) const {
    if (batches_ == 0) throw ValueError("prompt scores: no batch was seen");
    auto result = total.clone();
    for (T& v : result) v /= static_cast<T>(batches_);
    return result;
  }
  BasicTensor<T> token_, segment_;
  Index batches_ = 0;
};

/// The ⌊percent · n / 100⌋ tokens of the lowest score go with all their segments, but for the best
/// one, then of each that stays the ⌊percent · k / 100⌋ lowest segments, but for the best four.
template <std::floating_point T>
PromptMasks<T> prune_prompts(const BasicTensor<T>& token, const BasicTensor<T>& segment,
                             double percent) {
  const Index n = token.size(), k = segment.size() / std::max<Index>(1, n);
  PromptMasks<T> masks{BasicTensor<T>::full({n}, T{1}), BasicTensor<T>::full({n, k}, T{1})};
  // Zeroes the mask at the lowest `count` of `scores`.
  const auto drop = [](const T* scores, T* mask, Index size, Index count) {
    const auto order = smallest_first(std::vector<double>(scores, scores + size));
    for (Index i = 0; i < count; ++i) mask[order[static_cast<std::size_t>(i)]] = T{0};
  };
  const auto share = [percent](Index size, Index keep) {
    const auto count = static_cast<Index>(std::floor(percent * static_cast<double>(size) / 100));
    return std::clamp<Index>(count, 0, std::max<Index>(0, size - keep));
  };
  drop(token.data(), masks.token.data(), n, share(n, 1));
  for (Index i = 0; i < n; ++i)
    drop(segment.data() + i * k, masks.segment.data() + i * k, k,
         masks.token[i] == T{0} ? k : share(k, 4));
  return masks;
}

/// Prompts of all blocks behind masks that the blocks share: P̂_i = γ_i · ζ_i ⊙ P_i, each ζ_is over
/// a segment of width / segments elements.
template <std::floating_point T>
class MaskedPrompts final : public PromptStack<T> {
 public:
  MaskedPrompts(const E2vptConfig& config, std::shared_ptr<detail::BlockPrompts<T>> prompts,
                const std::string& root, Index width, Index in_front)
      : PromptStack<T>(config.num_tokens, in_front),
        prompts_(std::move(prompts)),
        root_(root),
        token_mask_(BasicTensor<T>::full({config.num_tokens}, T{1}), false),
        segment_mask_(BasicTensor<T>::full({config.num_tokens, config.num_segments}, T{1}), false) {
    if (width % config.num_segments != 0)
      throw ValueError(concat("E2VPT: num_segments ", config.num_segments,
                              " does not divide the width ", width));
    keep_start();
  }

  BasicVar<T> rows(BasicTape<T>& tape, Index layer, Index batch) const {
    const auto p = tape.parameter(prompts_->at(layer));
    const Index n = segment_mask_.shape()[0], k = segment_mask_.shape()[1];
    auto y =
        mul(reshape(p, {n, k, p.cols() / k}), reshape(tape.parameter(segment_mask_), {n, k, 1}));
    y = mul(y, reshape(tape.parameter(token_mask_), {n, 1, 1}));
    return detail::for_each_row(reshape(y, p.shape()), batch);
  }
  std::vector<AdapterTensor<T>> tensors() const override {
    auto list = prompts_->tensors();
    list.push_back(detail::whole_name<T>(root_ + ".prompt_token_mask", token_mask_));
    list.push_back(detail::whole_name<T>(root_ + ".prompt_segment_mask", segment_mask_));
    return list;
  }
  void after_load() override { keep_start(); }

  /// Adds what the gradients of the prompts of one batch, with all masks at one, say of the masks:
  /// ∂L/∂ζ_is = Σ P ⊙ ∂L/∂P over the segment and all blocks, ∂L/∂γ_i = Σ_s ∂L/∂ζ_is.
  void add_scores(PromptScores<T>& scores) const {
    const Index n = segment_mask_.shape()[0], k = segment_mask_.shape()[1];
    auto token = BasicTensor<T>::zeros({n}), segment = BasicTensor<T>::zeros({n, k});
    for (Index l = 0; l < prompts_->layers(); ++l) {
      const auto& p = prompts_->at(l);
      if (!p.grad()) continue;
      const Index width = p.shape()[1] / k;
      for (Index i = 0; i < p.size(); ++i) {
        const T term = p.value()[i] * p.grad()[i];
        segment[i / width] += term;
        token[i / (width * k)] += term;
      }
    }
    scores.add(token, segment);
  }
  void set_masks(const PromptMasks<T>& masks) {
    if (masks.token.shape() != token_mask_.shape() ||
        masks.segment.shape() != segment_mask_.shape())
      throw ShapeError(concat("E2VPT: masks ", masks.token.shape().text(), " and ",
                              masks.segment.shape().text(), ", expected ",
                              token_mask_.shape().text(), " and ", segment_mask_.shape().text()));
    token_mask_.assign(masks.token.clone());
    segment_mask_.assign(masks.segment.clone());
  }
  /// Gives the prompts the values again that they had at the start, or when they were loaded.
  void rewind() const {
    for (std::size_t l = 0; l < start_.size(); ++l)
      prompts_->at(static_cast<Index>(l)).assign(start_[l].clone());
  }

 protected:
  BasicVar<T> prompts(Index layer, const BasicVar<T>& x,
                      const ForwardContext& context) const override {
    return layer > 0 && layer < prompts_->layers() ? rows(x.tape(), layer, context.batch)
                                                   : BasicVar<T>{};
  }

 private:
  void keep_start() {
    start_.clear();
    for (Index l = 0; l < prompts_->layers(); ++l)
      start_.push_back(prompts_->at(l).value().clone());
  }
  std::shared_ptr<detail::BlockPrompts<T>> prompts_;
  std::string root_;
  BasicParameter<T> token_mask_, segment_mask_;
  std::vector<BasicTensor<T>> start_;
};

namespace detail {

template <std::floating_point T>
class MaskedPromptPart final : public PromptPart<T> {
 public:
  MaskedPromptPart(std::shared_ptr<MaskedPrompts<T>> prompts, Index tokens)
      : prompts_(std::move(prompts)), tokens_(tokens) {}
  Index virtual_tokens() const override { return tokens_; }
  BasicVar<T> prompt(BasicTape<T>& tape, Index batch, const ForwardContext&) const override {
    return prompts_->rows(tape, 0, batch);
  }
  std::vector<AdapterTensor<T>> tensors() const override { return {}; }

 private:
  std::shared_ptr<MaskedPrompts<T>> prompts_;
  Index tokens_;
};

/// Keys and values of an attention beside those of its tokens, [heads, tokens, width of a head]
/// each. They have no position.
template <std::floating_point T>
class KeyValuePrompts final : public AttentionPart<T> {
 public:
  KeyValuePrompts(const E2vptConfig& config, const AttentionSiteInfo<T>& site,
                  InitContext<T>& context) {
    const Shape shape{site.kv_heads, config.num_key_value_tokens, site.head_dim};
    const Index fan_in = shape[1] * shape[2];
    const auto make = [&] {
      return BasicParameter<T>(kaiming_uniform_tensor<T>(context, shape, fan_in, 0.0));
    };
    key_ = make();
    if (!config.shared_key_value) value_ = make();
  }
  void before(AttentionCall<T>& call) const override {
    auto& tape = call.q.tape();
    const auto rows = [&](const BasicParameter<T>& p) {
      return reshape(permute(tape.parameter(p), {1, 0, 2}), {p.shape()[1], call.k.cols()});
    };
    const auto k = rows(key_);
    prepend_keys(call, k, value_ ? rows(value_) : k);
  }
  std::vector<AdapterTensor<T>> tensors() const override {
    std::vector<AdapterTensor<T>> list(value_ ? 2 : 1);
    list[0].name = value_ ? "prompt_key" : "prompt_key_value";
    list[0].parameter = key_;
    if (value_) {
      list[1].name = "prompt_value";
      list[1].parameter = value_;
    }
    return list;
  }

 private:
  BasicParameter<T> key_, value_;  ///< value: empty where the keys are the values
};

}  // namespace detail

/// E²VPT: deep visual prompts behind masks, P̂_i = γ_i · ζ_i ⊙ P_i, and keys [K; Q], values [V; Q]
/// (or [V; Q_v]) in each attention. P: [tokens, d] a block; Q: [key/value heads, tokens, head
/// width]; γ: [tokens] and ζ: [tokens, segments], common to all blocks, ones at the start, frozen.
///
/// Trained: layers · tokens · d + layers · key/value tokens · width of the keys, twice that unless
/// shared. Not the identity at the start; does not merge. Stages: train; `add_scores` after the
/// backward pass of each batch; `prune_prompts`; `set_masks`, `rewind`, train again. In an encoder
/// that normalises what enters a block the token scores are noise: scaling a token changes nothing
/// there. Source: Han et al. 2023, arXiv:2307.13770, equations 4 to 9. Tensors:
/// vit.encoder.layer.N.{prompt_embeddings, attention.attention.{prompt_key_value, or prompt_key and
/// prompt_value}}, vit.{prompt_token_mask, prompt_segment_mask}.
template <std::floating_point T>
struct E2vptMethod {
  using Scalar = T;
  using Config = E2vptConfig;
  static MethodInfo info() {
    return {.peft_type = "E2VPT",
            .name = "E²VPT",
            .family = "prompts",
            .paper = "arXiv:2307.13770",
            .sites = "prompt, blocks, attention",
            .parameters = "; num_tokens d + num_key_value_tokens kv_heads head_dim a block",
            .mergeable = false,
            .in_peft = false,
            .identity_at_init = false};
  }
  static bool targets(const Config&, const std::string&) { return true; }
  static std::shared_ptr<AttentionPart<T>> attention(const Config& config,
                                                     const AttentionSiteInfo<T>& site,
                                                     InitContext<T>& context) {
    if (site.role != AttentionRole::self) return nullptr;
    return std::make_shared<detail::KeyValuePrompts<T>>(config, site, context);
  }
  template <class Set>
  static void finish(const Config& config, Set& set, BasicSiteTable<T>& table,
                     InitContext<T>& context) {
    auto names = detail::block_paths(table);
    for (auto& name : names) name += ".prompt_embeddings";
    const Index in_front = table.prompt == nullptr ? 0 : table.prompt->in_front();
    auto prompts = std::make_shared<detail::BlockPrompts<T>>(
        VptConfig{.num_tokens = config.num_tokens, .deep = true}, names, table, context);
    auto masked = std::make_shared<MaskedPrompts<T>>(
        config, prompts, detail::root_module(names.front()), table.info.hidden_size, in_front);
    detail::place_prompt<T>(
        set, table, std::make_shared<detail::MaskedPromptPart<T>>(masked, config.num_tokens));
    detail::place_stack<T>(set, table, masked);
  }
};

}  // namespace graft::inline v0_1
