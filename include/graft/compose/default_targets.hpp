#pragma once

#include <string>
#include <string_view>

#include "graft/adapters/config_value.hpp"

namespace graft::inline v0_1 {

/// Modules that a method goes to when its configuration names none, by architecture (config.json's
/// model_type), as Hugging Face PEFT chooses them. Empty if there is no rule.
inline TargetModules default_targets(std::string_view peft_type, std::string_view architecture) {
  const bool llama_like = architecture == "llama" || architecture == "qwen2" ||
                          architecture == "qwen3" || architecture == "gemma3_text" ||
                          architecture == "gemma3" || architecture == "mistral";
  const bool bert_like = architecture == "bert" || architecture == "roberta";
  if (peft_type == "IA3") {
    if (llama_like) return {"k_proj", "v_proj", "down_proj"};
    if (bert_like) return {"key", "value", "output.dense"};
    if (architecture == "gpt2") return {"c_attn", "mlp.c_proj"};
    if (architecture == "t5") return {"k", "v", "wo"};
    return {};
  }
  if (peft_type == "LN_TUNING") {
    if (llama_like) return {"input_layernorm", "post_attention_layernorm", "norm"};
    if (bert_like) return {"LayerNorm"};
    if (architecture == "gpt2") return {"ln_1", "ln_2", "ln_f"};
    if (architecture == "t5") return {"layer_norm", "final_layer_norm"};
    return {};
  }
  if (peft_type == "LLAMA_ADAPTER_V2") return "all-linear";
  if (peft_type == "TRAINABLE_TOKENS") {
    if (architecture == "bert" || architecture == "roberta" || architecture == "distilbert")
      return {"word_embeddings"};
    if (architecture == "gpt2") return {"wte"};
    if (architecture == "t5") return {"shared"};
    return {"embed_tokens"};
  }
  if (llama_like) return {"q_proj", "v_proj"};
  if (bert_like) return {"query", "value"};
  if (architecture == "distilbert") return {"q_lin", "v_lin"};
  if (architecture == "gpt2") return {"c_attn"};
  if (architecture == "t5") return {"q", "v"};
  if (architecture == "vit") return {"query", "value"};
  return {};
}

}  // namespace graft::inline v0_1
