#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/prompts/prompt_stack.hpp"

namespace graft::inline v0_1 {

/// Configuration of special-token adaptation.
struct PastaConfig {
  Index num_special_tokens = 2;          ///< vectors a block
  std::vector<Index> special_token_ids;  ///< of the vocabulary: class token, separator
  double dropout = 0;                    ///< of the vectors, while training; the original: 0.1
  std::string init = "zero";             ///< zero (the identity), normal (the original's, 0.02)

  static constexpr const char* kPeftType = "PASTA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("num_special_tokens", num_special_tokens);
    v("special_token_ids", special_token_ids);
    v("dropout", dropout);
    v("init", init);
  }
  /// @throws ValueError without special tokens, for an unknown init, a probability out of range.
  void validate() const {
    if (num_special_tokens < 1 || special_token_ids.empty())
      throw ValueError(concat("PASTA: num_special_tokens ", num_special_tokens, ", ",
                              special_token_ids.size(),
                              " special_token_ids, expected at least 1 of each"));
    if (init != "zero" && init != "normal")
      throw ValueError(concat("PASTA: init '", init, "', expected zero or normal"));
    if (dropout < 0 || dropout >= 1)
      throw ValueError(concat("PASTA: dropout ", dropout, ", expected [0, 1)"));
  }
};

/// Adds vectors to the hidden states of special tokens before each block.
template <std::floating_point T>
class BasicPasta final : public AdapterPart<T>, public StackAdapterInterface<T> {
 public:
  BasicPasta(const PastaConfig& config, std::vector<std::string> blocks, Index width,
             InitContext<T>& context)
      : config_(config), blocks_(std::move(blocks)) {
    for (std::size_t l = 0; l < blocks_.size(); ++l) {
      const Shape shape{config.num_special_tokens, width};
      vectors_.emplace_back(config.init == "normal" && !context.loading
                                ? detail::normal_tensor<T>(context.generator, shape, 0.02)
                                : BasicTensor<T>::zeros(shape));
    }
  }
  void begin(BasicTape<T>&) const override {}
  void leave(Index, const BasicVar<T>&) const override {}
  BasicVar<T> enter(Index layer, const BasicVar<T>& x) const override {
    auto& tape = x.tape();
    const auto* context = tape.template context<ForwardContext>();
    if (context == nullptr || layer >= std::ssize(vectors_)) return x;
    const Index batch = context->batch, total = x.rows() / batch, width = x.cols(),
                extra = total - context->seq_len;
    std::vector<Index> rows, numbers;
    const auto special = [&](std::int32_t id) {
      const auto& ids = config_.special_token_ids;
      return std::find(ids.begin(), ids.end(), static_cast<Index>(id)) != ids.end();
    };
    const auto past = std::ssize(context->past_ids) / batch;
    for (Index b = 0; b < batch && !context->ids.empty(); ++b) {
      const auto before = context->past_ids.begin() + b * past;
      Index number = std::count_if(before, before + past, special);
      for (Index t = 0; t < context->seq_len && number < config_.num_special_tokens; ++t) {
        const auto at = static_cast<std::size_t>(b * context->seq_len + t);
        const bool real = context->token_mask.empty() || context->token_mask[at] != 0;
        if (!real || !special(context->ids[at])) continue;
        rows.push_back(b * total + extra + t);
        numbers.push_back(number++);
      }
    }
    if (rows.empty()) return x;
    std::vector<Index> places;
    for (const Index row : rows)
      for (Index j = 0; j < width; ++j) places.push_back(row * width + j);
    const auto own =
        gather_rows(tape.parameter(vectors_[static_cast<std::size_t>(layer)]), std::move(numbers));
    return add(x, scatter(dropout(own, config_.dropout), std::move(places), x.shape()));
  }
  std::vector<AdapterTensor<T>> tensors() const override {
    std::vector<AdapterTensor<T>> list;
    for (std::size_t l = 0; l < blocks_.size(); ++l)
      list.push_back(
          detail::whole_name<T>(blocks_[l] + ".special_token_embedding.weight", vectors_[l]));
    return list;
  }

 private:
  PastaConfig config_;
  std::vector<std::string> blocks_;
  std::vector<BasicParameter<T>> vectors_;
};

/// Special-token adaptation: before block ℓ, h_t + v_k^ℓ where t is the k-th special token of its
/// sequence, k ≤ K; other tokens stay. v: [K, width] a block.
///
/// Trained: layers · K · width. The identity at the start with zeros; the original draws from
/// N(0, 0.02), see `init`. Does not merge. Padding is no special token. Source: Yang et al. 2023,
/// arXiv:2210.04382, equation 2. Tensors: bert.encoder.layer.N.special_token_embedding.weight.
template <std::floating_point T>
struct PastaMethod {
  using Scalar = T;
  using Config = PastaConfig;
  static Config example() {
    Config config;
    config.special_token_ids = {1, 7};
    return config;
  }
  static MethodInfo info() {
    return {.peft_type = "PASTA",
            .name = "Special-token adaptation",
            .family = "prompts",
            .paper = "arXiv:2210.04382",
            .sites = "blocks",
            .parameters = "once num_special_tokens layers d",
            .mergeable = false,
            .in_peft = false};
  }
  template <class Set>
  static void finish(const Config& config, Set& set, BasicSiteTable<T>& table,
                     InitContext<T>& context) {
    detail::place_stack<T>(set, table,
                           std::make_shared<BasicPasta<T>>(config, detail::block_paths(table),
                                                           table.info.hidden_size, context));
  }
};

}  // namespace graft::inline v0_1
