#pragma once

#include <algorithm>
#include <memory>
#include <string>

#include "graft/adapters/prompts/adaption_prompt.hpp"

namespace graft::inline v0_1 {

/// Configuration of LLaMA-Adapter as its authors have it.
struct LlamaAdapterConfig {
  Index adapter_len = 10;
  Index adapter_layers = 30;  ///< counted from the last one; more than there are: all
  bool gate_per_head = true;
  std::string gate_activation = "tanh";  ///< tanh, identity

  static constexpr const char* kPeftType = "LLAMA_ADAPTER";

  template <class Visitor>
  void fields(Visitor& v) {
    v("adapter_len", adapter_len);
    v("adapter_layers", adapter_layers);
    v("gate_per_head", gate_per_head);
    v("gate_activation", gate_activation);
  }
  /// @throws ValueError for a length below 1 or an unknown activation.
  void validate() const {
    if (adapter_len < 1 || adapter_layers < 1)
      throw ValueError(concat("LLaMA-Adapter: adapter_len ", adapter_len, ", adapter_layers ",
                              adapter_layers, ", expected at least 1"));
    if (gate_activation != "tanh" && gate_activation != "identity")
      throw ValueError(concat("LLaMA-Adapter: gate_activation '", gate_activation,
                              "', expected tanh or identity"));
  }
};

/// LLaMA-Adapter: W_o(attention + γ(g) · softmax(q k(P)ᵀ/√d) v(P)) in the last layers, k and v the
/// frozen layers of the attention, without rotation; γ = tanh with a gate for each head, or the
/// identity with one gate; P: [length, hidden].
///
/// Trained: length · hidden + heads (or 1) a layer. The identity at the start (g = 0). Does not
/// merge. Source: Zhang et al. 2023, arXiv:2303.16199, equations 4 to 7, and its program (tanh, one
/// gate a head). Tensors: adaption_prompt, adaption_gate.
template <std::floating_point T>
struct LlamaAdapterMethod {
  using Scalar = T;
  using Config = LlamaAdapterConfig;
  static MethodInfo info() {
    return {.peft_type = "LLAMA_ADAPTER",
            .name = "LLaMA-Adapter",
            .family = "prompts",
            .paper = "arXiv:2303.16199",
            .sites = "attention",
            .parameters = "adapter_len d + heads",
            .mergeable = false,
            .in_peft = false};
  }
  static bool targets(const Config&, const std::string&) { return true; }
  static std::shared_ptr<AttentionPart<T>> attention(const Config& config,
                                                     const AttentionSiteInfo<T>& site,
                                                     InitContext<T>& context) {
    if (site.role != AttentionRole::self || site.layer < site.model.layers - config.adapter_layers)
      return nullptr;
    return std::make_shared<BasicAdaptionPrompt<T>>(
        GatedPromptOptions{.length = config.adapter_len,
                           .gate_per_head = config.gate_per_head,
                           .tanh_gate = config.gate_activation == "tanh",
                           .as_peft = false},
        site, context);
  }
};

}  // namespace graft::inline v0_1
