#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/prompts/prompt_tuning.hpp"

namespace graft::inline v0_1 {

/// Configuration of multitask prompt tuning; fields as in PEFT's MultitaskPromptTuningConfig.
struct MultitaskPromptTuningConfig {
  PromptTuningConfig base;  ///< prompt_tuning_init here: RANDOM, TEXT, AVERAGE_SOURCE_TASKS,
                            ///< EXACT_SOURCE_TASK, ONLY_SOURCE_SHARED
  std::optional<std::string> prompt_tuning_init_state_dict_path;  ///< of the source, safetensors
  Index prompt_tuning_init_task = 0;
  Index num_ranks = 1;
  Index num_tasks = 1;

  static constexpr const char* kPeftType = "MULTITASK_PROMPT_TUNING";

  template <class Visitor>
  void fields(Visitor& v) {
    base.fields(v);
    v("prompt_tuning_init_state_dict_path", prompt_tuning_init_state_dict_path);
    v("prompt_tuning_init_task", prompt_tuning_init_task);
    v("num_ranks", num_ranks);
    v("num_tasks", num_tasks);
  }
  bool from_source() const {
    const auto& init = base.prompt_tuning_init;
    return init == "AVERAGE_SOURCE_TASKS" || init == "EXACT_SOURCE_TASK" ||
           init == "ONLY_SOURCE_SHARED";
  }
  /// @throws ValueError as for prompt tuning, for sizes below 1, a source without a path.
  void validate() const {
    if (from_source())
      base.prompt.validate("multitask prompt tuning");
    else
      base.validate();
    if (num_ranks < 1 || num_tasks < 1)
      throw ValueError(concat("multitask prompt tuning: num_ranks ", num_ranks, ", num_tasks ",
                              num_tasks, ", expected at least 1"));
  }
};

/// The virtual tokens of row b are P ⊙ (C_t R_t) for its task t.
template <std::floating_point T>
class BasicMultitaskPrompt final : public PromptPart<T> {
 public:
  BasicMultitaskPrompt(const MultitaskPromptTuningConfig& config, const PromptSiteInfo<T>& site,
                       InitContext<T>& context)
      : tokens_(config.base.prompt.tokens()) {
    const auto& prompt = config.base.prompt;
    const Shape shape{prompt.rows(), prompt.dim()};
    prompts_ = BasicParameter<T>(detail::first_prompt<T>(
        config.from_source() ? "RANDOM" : config.base.prompt_tuning_init,
        config.base.prompt_tuning_init_text.value_or(""),
        config.base.tokenizer_name_or_path.value_or(""), shape, site, context));
    const auto draw = [&](const Shape& of) {
      return BasicParameter<T>(context.loading
                                   ? BasicTensor<T>::zeros(of)
                                   : detail::normal_tensor<T>(context.generator, of, 0.02));
    };
    columns_ = draw({config.num_tasks, prompt.rows(), config.num_ranks});
    rows_ = draw({config.num_tasks, config.num_ranks, prompt.dim()});
    if (config.from_source() && !context.loading) start_from(config, context);
  }

  Index virtual_tokens() const override { return tokens_; }
  BasicVar<T> prompt(BasicTape<T>& tape, Index batch,
                     const ForwardContext& context) const override {
    return some(tape, batch, context, 0);
  }
  BasicVar<T> decoder_prompt(BasicTape<T>& tape, Index batch,
                             const ForwardContext& context) const override {
    if (prompts_.shape()[0] == tokens_) return {};
    return some(tape, batch, context, tokens_);
  }
  std::vector<AdapterTensor<T>> tensors() const override {
    std::vector<AdapterTensor<T>> list;
    for (const auto& [name, parameter] :
         {std::pair{"prompt_embeddings", prompts_}, std::pair{"prefix_task_cols", columns_},
          std::pair{"prefix_task_rows", rows_}})
      list.push_back({.name = name,
                      .parameter = parameter,
                      .index = {},
                      .scope = AdapterTensor<T>::Scope::root,
                      .file_shape = {}});
    return list;
  }

 private:
  /// Rows [first, first + tokens) for each row of the batch; each task that occurs is made once.
  BasicVar<T> some(BasicTape<T>& tape, Index batch, const ForwardContext& context,
                   Index first) const {
    const Index tasks = columns_.shape()[0], rank = columns_.shape()[2], dim = prompts_.shape()[1];
    auto ids = context.task_ids;
    if (ids.empty() && tasks == 1) ids.assign(static_cast<std::size_t>(batch), 0);
    if (static_cast<Index>(ids.size()) != batch)
      throw ValueError(concat("multitask prompt tuning: ", ids.size(), " task ids for a batch of ",
                              batch, " rows"));
    const auto p = slice(tape.parameter(prompts_), 0, first, tokens_);
    const auto all_columns = tape.parameter(columns_), all_rows = tape.parameter(rows_);
    std::vector<std::int64_t> seen;
    std::vector<BasicVar<T>> made;
    std::vector<Index> index;
    for (const std::int64_t task : ids) {
      if (task < 0 || task >= tasks)
        throw ValueError(concat("multitask prompt tuning: task ", task, " of ", tasks));
      const auto at = std::find(seen.begin(), seen.end(), task);
      index.push_back(at - seen.begin());
      if (at != seen.end()) continue;
      seen.push_back(task);
      const auto c = slice(slice(all_columns, 0, task, 1), 1, first, tokens_);
      const auto r = slice(all_rows, 0, task, 1);
      made.push_back(reshape(mul(p, matmul(reshape(c, {tokens_, rank}), reshape(r, {rank, dim}))),
                             {1, tokens_, dim}));
    }
    return gather_rows(concat_along(0, made), std::move(index));
  }
  void start_from(const MultitaskPromptTuningConfig& config, InitContext<T>& context) const {
    const auto& path = config.prompt_tuning_init_state_dict_path;
    if (!path || !context.read_tensor)
      throw ValueError(concat("multitask prompt tuning: prompt_tuning_init ",
                              config.base.prompt_tuning_init, " needs ",
                              path ? "access to files" : "prompt_tuning_init_state_dict_path"));
    const auto take = [&](const char* name, const BasicParameter<T>& to, auto&& change) {
      auto value = change(context.read_tensor(*path, name));
      if (value.shape() != to.shape())
        throw ValueError(concat("multitask prompt tuning: ", *path, ": ", name, " gives ",
                                value.shape().text(), ", expected ", to.shape().text()));
      to.assign(std::move(value));
    };
    take("prompt_embeddings", prompts_, [](BasicTensor<T> v) { return v; });
    if (config.base.prompt_tuning_init == "ONLY_SOURCE_SHARED") return;
    const auto one_task = [&](const BasicTensor<T>& all) {
      Shape shape = all.shape();
      const Index tasks = shape[0], size = all.size() / std::max<Index>(tasks, 1);
      shape[0] = 1;
      auto one = BasicTensor<T>::zeros(shape);
      const Index wanted = config.prompt_tuning_init_task;
      const bool average = config.base.prompt_tuning_init == "AVERAGE_SOURCE_TASKS";
      if (!average && (wanted < 0 || wanted >= tasks))
        throw ValueError(
            concat("multitask prompt tuning: prompt_tuning_init_task ", wanted, " of ", tasks));
      for (Index t = average ? 0 : wanted; t < (average ? tasks : wanted + 1); ++t)
        for (Index i = 0; i < size; ++i) one[i] += all[t * size + i];
      if (average)
        for (T& v : one) v /= static_cast<T>(tasks);
      return one;
    };
    take("prefix_task_cols", columns_, one_task);
    take("prefix_task_rows", rows_, one_task);
  }

  Index tokens_;
  BasicParameter<T> prompts_, columns_, rows_;
};

/// Multitask prompt tuning: virtual tokens P ⊙ (C_t R_t) in front of a row of task t. P: [tokens,
/// dim] shared, C: [tasks, tokens, rank], R: [tasks, rank, dim].
///
/// Trained: tokens · dim + tasks · rank · (tokens + dim); for an encoder and a decoder 2 · tokens
/// rows, the second half in front of the decoder's input. The batch says the task of each row
/// (`task_ids`; not needed with one task). Not the identity at the start; does not merge. The
/// distillation of a source stage is the trainer's: λ (`kl_divergence` of the teacher's logits and
/// these, and `mse` of the hidden states) beside the loss, λ = 0.9. Source: Wang et al. 2023,
/// arXiv:2303.02861. Tensors: prompt_embeddings, prefix_task_cols,
/// prefix_task_rows.
template <std::floating_point T>
struct MultitaskPromptTuningMethod {
  using Scalar = T;
  using Config = MultitaskPromptTuningConfig;
  static Config example() {
    Config config;
    config.base.prompt.num_virtual_tokens = 4;
    return config;
  }
  static MethodInfo info() {
    return {
        .peft_type = "MULTITASK_PROMPT_TUNING",
        .name = "Multitask prompt tuning",
        .family = "prompts",
        .paper = "arXiv:2303.02861",
        .sites = "prompt",
        .parameters = "tokens d + num_tasks num_ranks (tokens + d), tokens = num_virtual_tokens",
        .mergeable = false,
        .path_prefix = "base_model.",
        .identity_at_init = false,
        .adds_up = false};
  }
  static std::shared_ptr<PromptPart<T>> prompt(Config config, const PromptSiteInfo<T>& site,
                                               InitContext<T>& context) {
    config.base.prompt.follow(site.model);
    detail::check_prompt_width("multitask prompt tuning", config.base.prompt, site);
    return std::make_shared<BasicMultitaskPrompt<T>>(config, site, context);
  }
  template <class Set, class Table>
  static void finish(Config config, Set& set, const Table& table, InitContext<T>&) {
    config.base.prompt.follow(table.info);
    detail::name_tokenizer(config.base, set);
    detail::keep_config(config, set);
  }
};

}  // namespace graft::inline v0_1
