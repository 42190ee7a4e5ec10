#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "graft/adapters/prompts/prompt_table.hpp"

namespace graft::inline v0_1 {

/// Configuration of prompt tuning; fields as in PEFT's PromptTuningConfig.
struct PromptTuningConfig {
  PromptFields prompt;
  std::string prompt_tuning_init = "RANDOM";  ///< RANDOM, SAMPLE_VOCAB, TEXT
  std::optional<std::string> prompt_tuning_init_text;
  std::optional<std::string> tokenizer_name_or_path;
  ConfigValue tokenizer_kwargs;
  std::vector<std::string> modules_to_save;

  static constexpr const char* kPeftType = "PROMPT_TUNING";

  template <class Visitor>
  void fields(Visitor& v) {
    prompt.fields(v);
    v("prompt_tuning_init", prompt_tuning_init);
    v("prompt_tuning_init_text", prompt_tuning_init_text);
    v("tokenizer_name_or_path", tokenizer_name_or_path);
    v("tokenizer_kwargs", tokenizer_kwargs);
    nullable_field(v, "modules_to_save", modules_to_save);
  }
  /// @throws ValueError without virtual tokens, for an unknown start, for TEXT without a text.
  void validate() const {
    prompt.validate("prompt tuning");
    if (prompt_tuning_init != "RANDOM" && prompt_tuning_init != "SAMPLE_VOCAB" &&
        prompt_tuning_init != "TEXT")
      throw ValueError(concat("prompt tuning: prompt_tuning_init '", prompt_tuning_init,
                              "', expected RANDOM, SAMPLE_VOCAB or TEXT"));
    if (prompt_tuning_init == "TEXT" && !prompt_tuning_init_text)
      throw ValueError("prompt tuning: prompt_tuning_init TEXT without prompt_tuning_init_text");
  }
};

namespace detail {

/// First table of virtual tokens: N(0, 1), rows of random words, or the rows of a text, repeated or
/// cut to fit. Draws as PEFT does, which fills the table at random in any case.
/// @throws ValueError for a text without a tokenizer or without words.
template <std::floating_point T>
BasicTensor<T> first_prompt(const std::string& init, const std::string& text,
                            const std::string& tokenizer, const Shape& shape,
                            const PromptSiteInfo<T>& site, InitContext<T>& context) {
  auto values = embedding_values<T>(shape, context);
  if (context.loading || init == "RANDOM") return values;
  std::vector<std::int32_t> ids;
  if (init == "SAMPLE_VOCAB") {
    for (Index i = 0; i < shape[0]; ++i)
      ids.push_back(static_cast<std::int32_t>(context.generator.randint(site.model.vocabulary)));
  } else if (init == "TEXT") {
    if (!context.tokenize) throw ValueError("prompt tuning: a start from text needs a tokenizer");
    const auto words = context.tokenize(text, tokenizer);
    if (words.empty()) throw ValueError("prompt tuning: prompt_tuning_init_text has no tokens");
    for (Index i = 0; i < shape[0]; ++i)
      ids.push_back(words[static_cast<std::size_t>(i) % words.size()]);
  } else {
    return values;
  }
  if (!site.embed) throw ValueError("prompt tuning: the model has no embedding to start from");
  return site.embed(ids).reshape(shape).clone();
}

}  // namespace detail

namespace detail {

/// A start from text names its tokenizer in files, which PEFT insists on: the model's, if none was
/// given.
template <class Set>
void name_tokenizer(PromptTuningConfig& config, Set& set) {
  if (config.prompt_tuning_init != "TEXT" || config.tokenizer_name_or_path) return;
  const auto& map = set.mutable_config();
  const auto model = map.find("base_model_name_or_path");
  const auto* name = model == map.end() ? nullptr : model->second.template get_if<std::string>();
  config.tokenizer_name_or_path = name == nullptr ? std::string() : *name;
}

}  // namespace detail

/// Prompt tuning: the input of the first block is [P; E(ids)], P: [tokens, dim] trained.
///
/// Trained: tokens · dim (twice that for an encoder and a decoder: PEFT makes 2 · tokens rows then,
/// and uses the first half, in front of the encoder). Not the identity at the start; does not
/// merge. Virtual tokens take positions, are seen by all others, and have no labels. Source: Lester
/// et al. 2021, arXiv:2104.08691. Deviation: the starts are those of PEFT; the paper draws
/// uniformly in ±0.5, or words from the 5,000 most frequent. Tensor: prompt_embeddings.
template <std::floating_point T>
struct PromptTuningMethod {
  using Scalar = T;
  using Config = PromptTuningConfig;
  static Config example() {
    Config config;
    config.prompt.num_virtual_tokens = 4;
    return config;
  }
  static MethodInfo info() {
    return {.peft_type = "PROMPT_TUNING",
            .name = "Prompt tuning",
            .family = "prompts",
            .paper = "arXiv:2104.08691",
            .sites = "prompt",
            .parameters = "tokens d, tokens = num_virtual_tokens",
            .mergeable = false,
            .path_prefix = "base_model.",
            .identity_at_init = false,
            .adds_up = false};
  }
  static std::shared_ptr<PromptPart<T>> prompt(Config config, const PromptSiteInfo<T>& site,
                                               InitContext<T>& context) {
    config.prompt.follow(site.model);
    detail::check_prompt_width("prompt tuning", config.prompt, site);
    return std::make_shared<TablePrompt<T>>(
        std::make_shared<PromptTable<T>>(detail::first_prompt<T>(
            config.prompt_tuning_init, config.prompt_tuning_init_text.value_or(""),
            config.tokenizer_name_or_path.value_or(""), {config.prompt.rows(), config.prompt.dim()},
            site, context)),
        config.prompt.tokens());
  }
  template <class Set, class Table>
  static void finish(Config config, Set& set, const Table& table, InitContext<T>&) {
    config.prompt.follow(table.info);
    detail::name_tokenizer(config, set);
    detail::keep_config(config, set);
  }
};

}  // namespace graft::inline v0_1
