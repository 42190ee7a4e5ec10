#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/prompts/prompt_table.hpp"

namespace graft::inline v0_1 {

/// Configuration of context-aware prompt tuning; fields as in PEFT's CPTConfig.
struct CptConfig {
  PromptFields prompt;
  std::vector<Index> cpt_token_ids;         ///< the examples; empty: token 0
  std::vector<Index> cpt_mask;              ///< kept in files, not used
  std::vector<Index> cpt_tokens_type_mask;  ///< by token, 4 · example + 1, 2, 3, 4 for the template
                                            ///< of an input, the input, the template of an output,
                                            ///< the output; 0: nothing of these
  std::string opt_weighted_loss_type = "none";  ///< none, decay
  double opt_loss_decay_factor = 1;
  double opt_projection_epsilon = 0.1;         ///< largest norm of a change of an input
  double opt_projection_format_epsilon = 0.1;  ///< of a template
  std::optional<std::string> tokenizer_name_or_path;
  std::vector<std::string> modules_to_save;

  static constexpr const char* kPeftType = "CPT";

  template <class Visitor>
  void fields(Visitor& v) {
    prompt.fields(v);
    v("cpt_token_ids", cpt_token_ids);
    v("cpt_mask", cpt_mask);
    v("cpt_tokens_type_mask", cpt_tokens_type_mask);
    v("opt_weighted_loss_type", opt_weighted_loss_type);
    v("opt_loss_decay_factor", opt_loss_decay_factor);
    v("opt_projection_epsilon", opt_projection_epsilon);
    v("opt_projection_format_epsilon", opt_projection_format_epsilon);
    v("tokenizer_name_or_path", tokenizer_name_or_path);
    nullable_field(v, "modules_to_save", modules_to_save);
  }
  /// Fills in the lists that were not given, and what follows from them.
  void complete() {
    if (cpt_token_ids.empty()) cpt_token_ids = {0};
    if (cpt_mask.empty()) cpt_mask.assign(cpt_token_ids.size(), 1);
    if (cpt_tokens_type_mask.empty()) cpt_tokens_type_mask.assign(cpt_token_ids.size(), 1);
    prompt.num_virtual_tokens = static_cast<Index>(cpt_token_ids.size());
    prompt.num_transformer_submodules = 1;
  }
  /// @throws ValueError if the lists differ in length, for an unknown loss, a negative token.
  void validate() const {
    auto copy = *this;
    copy.complete();
    const auto n = copy.cpt_token_ids.size();
    if (copy.cpt_mask.size() != n || copy.cpt_tokens_type_mask.size() != n)
      throw ValueError(concat("CPT: ", n, " token ids, a mask of ", copy.cpt_mask.size(), " and ",
                              copy.cpt_tokens_type_mask.size(), " types"));
    if (opt_weighted_loss_type != "none" && opt_weighted_loss_type != "decay")
      throw ValueError(concat("CPT: opt_weighted_loss_type '", opt_weighted_loss_type,
                              "', expected none or decay"));
    for (const Index id : copy.cpt_token_ids)
      if (id < 0) throw ValueError(concat("CPT: token ", id));
  }
};

namespace detail {

/// E + Π(Δ) with frozen rows E and each row of Δ scaled down to its largest norm. The gradient goes
/// straight through Π, to the rows of types 1, 2 and 3 only.
template <std::floating_point T>
class CptEncoder final : public PromptEncoder<T> {
 public:
  CptEncoder(const CptConfig& config, BasicTensor<T> words)
      : words_(words),
        embedding_(words.clone(), false),
        delta_(BasicTensor<T>::zeros(words.shape())) {
    const double width = std::sqrt(static_cast<double>(config.prompt.dim()) / 2048);
    for (const Index type : config.cpt_tokens_type_mask) {
      const Index kind = type % 4;
      trained_.push_back(kind == 1 || kind == 2 || kind == 3);
      double limit = 1e-10;
      if (type > 0 && (kind == 1 || kind == 3))
        limit = config.opt_projection_format_epsilon * width;
      if (type > 0 && kind == 2) limit = config.opt_projection_epsilon * width;
      limits_.push_back(static_cast<T>(limit));
    }
  }
  std::vector<std::pair<std::string, BasicParameter<T>>> tensors() const override {
    return {{"delta_embedding.weight", delta_}, {"embedding.weight", embedding_}};
  }
  BasicVar<T> columns(BasicTape<T>& tape, Index first, Index count) const override {
    const auto delta = tape.parameter(delta_);
    const Index dim = delta.cols();
    const auto y =
        tape.record(projected(), delta.requires_grad(),
                    [gx = delta.grad_ref(), dim, trained = trained_](const BasicTensor<T>& dy) {
                      auto dx = dy.clone();
                      for (std::size_t i = 0; i < trained.size(); ++i)
                        if (!trained[i])
                          std::fill_n(dx.data() + static_cast<Index>(i) * dim, dim, T{0});
                      gx.add(dx);
                    });
    const auto all = add(tape.constant(embedding_.value()), y);
    return count == dim ? all : slice(all, 1, first, count);
  }
  bool adopt(const BasicTensor<T>& table) const override {
    embedding_.assign(table.clone());
    delta_.assign(BasicTensor<T>::zeros(table.shape()));
    return true;
  }
  void before_load() const override { embedding_.assign(words_.clone()); }
  /// Δ becomes Π(Δ).
  void project() const { delta_.assign(projected()); }

 private:
  BasicTensor<T> projected() const {
    auto y = delta_.value().clone();
    const Index dim = y.cols();
    for (std::size_t i = 0; i < limits_.size(); ++i) {
      T* row = y.data() + static_cast<Index>(i) * dim;
      T norm = 0;
      for (Index j = 0; j < dim; ++j) norm += row[j] * row[j];
      norm = std::sqrt(norm);
      if (norm <= limits_[i]) continue;
      for (Index j = 0; j < dim; ++j) row[j] *= limits_[i] / norm;
    }
    return y;
  }

  BasicTensor<T> words_;  ///< rows of the model's embedding
  BasicParameter<T> embedding_, delta_;
  std::vector<T> limits_;
  std::vector<bool> trained_;
};

}  // namespace detail

/// Virtual tokens that are examples: their outputs are predicted too.
template <std::floating_point T>
class BasicCptPrompt final : public TablePrompt<T> {
 public:
  BasicCptPrompt(const CptConfig& config, std::shared_ptr<PromptTable<T>> table)
      : TablePrompt<T>(std::move(table), config.prompt.tokens()), config_(config) {}

  /// Tokens of the text count as outputs of one more example. As in PEFT their type is 4 + the
  /// largest of the virtual tokens, so they have no labels if that is no multiple of 4.
  void change_labels(Index batch, std::span<std::int64_t> labels,
                     std::vector<T>& weights) const override {
    const Index tokens = static_cast<Index>(labels.size()) / batch, n = this->virtual_tokens();
    const auto& types = config_.cpt_tokens_type_mask;
    const Index text = 4 + *std::max_element(types.begin(), types.end());
    const auto is_output = [](Index type) { return type > 0 && type % 4 == 0; };
    // Factor of each output, 1 for the last one; the first token is predicted by none.
    std::set<Index> outputs;
    for (Index t = 1; t < tokens; ++t) {
      const Index type = t < n ? types[static_cast<std::size_t>(t)] : text;
      if (is_output(type)) outputs.insert(type);
    }
    const auto factor_of = [&](Index type) {
      T factor = 1;
      for (auto it = outputs.rbegin(); it != outputs.rend() && *it != type; ++it)
        factor *= static_cast<T>(config_.opt_loss_decay_factor);
      return factor;
    };
    if (outputs.empty())
      throw ValueError(
          concat("CPT: the largest type in cpt_tokens_type_mask is ", text - 4,
                 ", so that the text is no output and nothing is left to predict; the examples in "
                 "cpt_token_ids end with an output, whose type is a multiple of 4"));
    const bool decay = config_.opt_weighted_loss_type == "decay";
    if (decay) weights.assign(labels.size(), T{1});
    for (Index t = 0; t < tokens; ++t) {
      const Index type = t < n ? types[static_cast<std::size_t>(t)] : text;
      const bool output = is_output(type);
      const T factor = output && decay ? factor_of(type) : T{1};
      for (Index b = 0; b < batch; ++b) {
        const auto at = static_cast<std::size_t>(b * tokens + t);
        if (!output)
          labels[at] = kIgnored;
        else if (t < n)
          labels[at] = config_.cpt_token_ids[static_cast<std::size_t>(t)];
        if (decay) weights[at] = factor;
      }
    }
  }

 private:
  static constexpr std::int64_t kIgnored = -100;
  CptConfig config_;
};

/// Keeps Δ inside of its limits from step to step.
template <std::floating_point T>
class CptProcedure final : public Procedure<T> {
 public:
  explicit CptProcedure(std::shared_ptr<BasicCptPrompt<T>> part) : part_(std::move(part)) {}
  void before_step(const StepInfo&) override {
    if (const auto* encoder = dynamic_cast<const detail::CptEncoder<T>*>(part_->table().encoder()))
      encoder->project();
  }

 private:
  std::shared_ptr<BasicCptPrompt<T>> part_;
};

/// Context-aware prompt tuning: virtual tokens E(ids) + Δ of worked examples, with trained Δ:
/// [tokens, dim] whose rows stay within ε · √(dim / 2048) of zero; outputs have 1e-10.
///
/// Trained: tokens · dim. At the start the examples themselves. The loss counts the outputs of the
/// examples beside the labels, divided by the number of all; with `decay` those of the example
/// before the last have the factor γ, those before γ², and so on. Does not merge. Source: Tsachor
/// Blau et al. 2024, arXiv:2410.17222. Causal models only. Tensor in finished files:
/// prompt_embeddings = E + Δ; loaded from there it is the new E, as in PEFT.
template <std::floating_point T>
struct CptMethod {
  using Scalar = T;
  using Config = CptConfig;
  static Config example() {
    Config config;
    config.cpt_token_ids = {5, 6, 7, 8};
    config.cpt_mask = {1, 1, 1, 1};
    config.cpt_tokens_type_mask = {1, 2, 3, 4};
    return config;
  }
  static MethodInfo info() {
    return {.peft_type = "CPT",
            .name = "Context-aware prompt tuning",
            .family = "prompts",
            .paper = "arXiv:2410.17222",
            .sites = "prompt",
            .parameters = "tokens d, tokens = num_virtual_tokens",
            .mergeable = false,
            .path_prefix = "base_model.",
            .identity_at_init = false,
            .exact_gradient = false,
            .adds_up = false};
  }
  static std::shared_ptr<PromptPart<T>> prompt(Config config, const PromptSiteInfo<T>& site,
                                               InitContext<T>&) {
    config.complete();
    config.prompt.follow(site.model);
    detail::check_prompt_width("CPT", config.prompt, site);
    if (!site.embed) throw ValueError("CPT: the model has no embedding to start from");
    const std::vector<std::int32_t> ids(config.cpt_token_ids.begin(), config.cpt_token_ids.end());
    const Shape shape{config.prompt.tokens(), config.prompt.dim()};
    return std::make_shared<BasicCptPrompt<T>>(
        config, std::make_shared<PromptTable<T>>(
                    shape, std::make_unique<detail::CptEncoder<T>>(
                               config, site.embed(ids).reshape(shape).clone())));
  }
  static std::unique_ptr<Procedure<T>> procedure(const Config&,
                                                 const std::vector<PlacedPart<T>>& parts) {
    for (const auto& placed : parts)
      if (auto part = std::dynamic_pointer_cast<BasicCptPrompt<T>>(placed.part))
        return std::make_unique<CptProcedure<T>>(std::move(part));
    return nullptr;
  }
  template <class Set, class Table>
  static void finish(Config config, Set& set, const Table& table, InitContext<T>&) {
    config.complete();
    config.prompt.follow(table.info);
    detail::keep_config(config, set);
  }
};

}  // namespace graft::inline v0_1
