#pragma once

#include <memory>
#include <string>
#include <utility>

#include "graft/adapters/prompts/prefix_tuning.hpp"

namespace graft::inline v0_1 {

/// Configuration of P-tuning v2 and of prefix tuning as its authors train it.
template <bool Mlp>
struct PrefixTableConfig {
  Index num_virtual_tokens = 20;
  bool prefix_projection = Mlp;
  Index encoder_hidden_size = 512;  ///< of the projection

  static constexpr const char* kPeftType = Mlp ? "PREFIX_TUNING_MLP" : "P_TUNING_V2";

  template <class Visitor>
  void fields(Visitor& v) {
    v("num_virtual_tokens", num_virtual_tokens);
    v("prefix_projection", prefix_projection);
    v("encoder_hidden_size", encoder_hidden_size);
  }
  /// @throws ValueError for a size below 1.
  void validate() const {
    if (num_virtual_tokens < 1 || (prefix_projection && encoder_hidden_size < 1))
      throw ValueError(concat(kPeftType, ": num_virtual_tokens ", num_virtual_tokens,
                              ", encoder_hidden_size ", encoder_hidden_size));
  }
};
using PTuningV2Config = PrefixTableConfig<false>;
using PrefixTuningMlpConfig = PrefixTableConfig<true>;

/// P-tuning v2: every layer's attention sees [P_K; K] and [P_V; V]; P: [tokens, layers · 2 · width
/// of the keys], trained itself. Prefix tuning with its MLP: P = tanh(E A₁ᵀ + a₁) A₂ᵀ + a₂, E:
/// [tokens, hidden]. Either may be had of both by `prefix_projection`.
///
/// Trained: tokens · 2 · layers · width; with the projection tokens · hidden + (hidden + 1) h + (h
/// + 1) · 2 · layers · width. Not the identity at the start; does not merge. As PEFT's prefix
/// tuning, P and E from N(0, 1), but that the rows of E are as wide as the model and that files of
/// PREFIX_TUNING_MLP hold the projection, so that training can go on. Sources: Liu et al. 2022,
/// arXiv:2110.07602; Li and Liang 2021, arXiv:2101.00190. Tensors: prompt_embeddings, or
/// prompt_encoder.{embedding.weight, transform.0, transform.2}.
template <std::floating_point T, bool Mlp>
struct PrefixTableMethod {
  using Scalar = T;
  using Config = PrefixTableConfig<Mlp>;
  static MethodInfo info() {
    return {.peft_type = Config::kPeftType,
            .name = Mlp ? "Prefix tuning with its MLP" : "P-tuning v2",
            .family = "prompts",
            .paper = Mlp ? "arXiv:2101.00190" : "arXiv:2110.07602",
            .sites = "attention",
            .parameters = Mlp ? "; 2 tokens layers width when it is done, and its MLP"
                              : "once 2 num_virtual_tokens layers kv_heads head_dim",
            .mergeable = false,
            .in_peft = false,
            .identity_at_init = false};
  }
  static bool targets(const Config&, const std::string&) { return true; }
  static std::shared_ptr<AttentionPart<T>> attention(const Config& config,
                                                     const AttentionSiteInfo<T>& site,
                                                     InitContext<T>& context) {
    PromptFields prompt;
    prompt.num_virtual_tokens = config.num_virtual_tokens;
    prompt.num_transformer_submodules = 1;
    prompt.follow(site.model, true);
    return detail::prefix_part<T>(
        Config::kPeftType, prompt, site, context, [&](const Shape& shape) {
          auto table = config.prefix_projection
                           ? PromptTable<T>(shape, std::make_unique<detail::PrefixEncoder<T>>(
                                                       shape, site.model.hidden_size,
                                                       config.encoder_hidden_size, false, context))
                           : PromptTable<T>(detail::embedding_values<T>(shape, context));
          table.below_model = true;
          table.keep_encoder = Mlp;
          return table;
        });
  }
};
template <std::floating_point T>
using PTuningV2Method = PrefixTableMethod<T, false>;
template <std::floating_point T>
using PrefixTuningMlpMethod = PrefixTableMethod<T, true>;

}  // namespace graft::inline v0_1
