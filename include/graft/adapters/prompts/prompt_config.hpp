#pragma once

#include <optional>
#include <string>

#include "graft/adapters/method.hpp"

namespace graft::inline v0_1 {

/// Fields that the methods of virtual tokens share; names and defaults as in PEFT's
/// PromptLearningConfig. What is not given follows from the model.
struct PromptFields {
  std::optional<Index> num_virtual_tokens;
  std::optional<Index> token_dim;
  std::optional<Index> num_transformer_submodules;  ///< 2 for an encoder and a decoder
  std::optional<Index> num_attention_heads;
  std::optional<Index> num_layers;

  template <class Visitor>
  void fields(Visitor& v) {
    v("num_virtual_tokens", num_virtual_tokens);
    v("token_dim", token_dim);
    v("num_transformer_submodules", num_transformer_submodules);
    v("num_attention_heads", num_attention_heads);
    v("num_layers", num_layers);
  }
  /// @throws ValueError if there is no virtual token.
  void validate(const char* method) const {
    if (num_virtual_tokens.value_or(0) < 1)
      throw ValueError(concat(method, ": num_virtual_tokens is ",
                              num_virtual_tokens ? concat(*num_virtual_tokens) : "missing",
                              ", expected at least 1"));
    for (const auto& field :
         {token_dim, num_transformer_submodules, num_attention_heads, num_layers})
      if (field && *field < 1)
        throw ValueError(concat(method, ": a size of the model is ", *field));
  }
  /// Fills in what the model decides. `keys`: virtual tokens are keys and values, whose width
  /// replaces that of the embedding.
  void follow(const ModelInfo& model, bool keys = false) {
    num_layers = num_layers.value_or(model.layers);
    num_transformer_submodules =
        num_transformer_submodules.value_or(model.encoder_decoder ? Index{2} : Index{1});
    if (keys) {
      token_dim = model.kv_heads * model.head_dim;
      num_attention_heads = model.kv_heads;
    } else {
      token_dim = token_dim.value_or(model.hidden_size);
      num_attention_heads = num_attention_heads.value_or(model.heads);
    }
  }
  Index tokens() const { return num_virtual_tokens.value_or(0); }
  /// Rows of the table of virtual tokens: one for each token and submodule.
  Index rows() const { return tokens() * num_transformer_submodules.value_or(1); }
  Index dim() const { return token_dim.value_or(0); }
};

namespace detail {

/// @throws ValueError unless virtual tokens are as wide as the embedding that they join.
template <std::floating_point T>
void check_prompt_width(const char* method, const PromptFields& prompt,
                        const PromptSiteInfo<T>& site) {
  if (prompt.dim() != site.dim)
    throw ValueError(concat(method, ": token_dim ", prompt.dim(), ", the embedding ", site.path,
                            " has ", site.dim));
}

}  // namespace detail

}  // namespace graft::inline v0_1
