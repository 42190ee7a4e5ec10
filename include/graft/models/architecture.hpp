#pragma once

#include <string>
#include <string_view>

namespace graft::inline v0_1::models {

/// Models that one class computes.
enum class Family { llama, gemma3, gpt2, bert, vit, t5 };

/// The names of a model.
struct Architecture {
  std::string_view type;  ///< model_type of config.json
  std::string_view name;  ///< of its classes in transformers: "Qwen2" of Qwen2ForCausalLM
  std::string_view body;  ///< of the model below a classifier: "bert" of bert.encoder.…
  Family family;
  std::string_view gguf = {};  ///< general.architecture of GGUF files; empty: not from these

  /// True if it predicts the next token from those before.
  constexpr bool is_decoder() const {
    return family == Family::llama || family == Family::gemma3 || family == Family::gpt2;
  }
};

/// All that are supported.
inline constexpr Architecture kArchitectures[] = {
    {"llama", "Llama", "model", Family::llama, "llama"},
    {"mistral", "Mistral", "model", Family::llama},
    {"qwen2", "Qwen2", "model", Family::llama, "qwen2"},
    {"qwen3", "Qwen3", "model", Family::llama, "qwen3"},
    {"gemma3_text", "Gemma3Text", "model", Family::gemma3, "gemma3"},
    {"gpt2", "GPT2", "transformer", Family::gpt2},
    {"bert", "Bert", "bert", Family::bert},
    {"roberta", "Roberta", "roberta", Family::bert},
    {"distilbert", "DistilBert", "distilbert", Family::bert},
    {"vit", "ViT", "vit", Family::vit},
    {"t5", "T5", "transformer", Family::t5}};

/// The architecture of a model_type; null for one that is not supported.
constexpr const Architecture* find_architecture(std::string_view type) {
  for (const auto& one : kArchitectures)
    if (one.type == type) return &one;
  return nullptr;
}
/// The same for general.architecture of a GGUF file.
constexpr const Architecture* find_gguf_architecture(std::string_view name) {
  for (const auto& one : kArchitectures)
    if (!one.gguf.empty() && one.gguf == name) return &one;
  return nullptr;
}

/// The types of those that `fits`, for messages: "bert, roberta and distilbert are", "vit is".
template <class Fits>
std::string supported_types(const Fits& fits) {
  std::string before;
  std::string_view last;
  for (const auto& one : kArchitectures) {
    if (!fits(one)) continue;
    if (!last.empty()) before += (before.empty() ? "" : ", ") + std::string(last);
    last = one.type;
  }
  return before.empty() ? std::string(last) + " is" : before + " and " + std::string(last) + " are";
}

}  // namespace graft::inline v0_1::models
