#pragma once

#include <string>
#include <vector>

#include "graft/autograd/parameter.hpp"
#include "graft/optim/optimizer.hpp"

namespace graft::inline v0_1 {

struct LoRAPlusConfig {
  double learning_rate = 1e-4;            ///< of A; must be the optimiser's
  double ratio = 16;                      ///< learning rate of B over that of A
  double embedding_learning_rate = 1e-6;  ///< of LoRA on embeddings
  double weight_decay = 0;
};

namespace detail {

/// True for the parameters of a norm, by the name of their module: "….layer_norm.weight", "ln_1".
inline bool names_norm(const std::string& name) {
  const auto end = name.rfind('.');
  if (end == std::string::npos) return false;
  const auto begin = end == 0 ? std::string::npos : name.rfind('.', end - 1);
  std::string module = name.substr(begin == std::string::npos ? 0 : begin + 1,
                                   end - (begin == std::string::npos ? 0 : begin + 1));
  for (char& c : module)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return module.find("norm") != std::string::npos || module.starts_with("ln_");
}

}  // namespace detail

/// True for a factor B of LoRA: what has "lora_B" in its name or as its group.
template <std::floating_point T>
bool is_lora_b(const BasicNamedParameter<T>& parameter) {
  return parameter.group == "lora_B" || parameter.name.find("lora_B") != std::string::npos;
}

/// The groups of LoRA+: A, LoRA on embeddings, B, and what of B does not decay. B and everything
/// with one axis (magnitudes, biases, norms) learn `ratio` times as fast as A, to which all others
/// belong; biases and norms do not decay. B is `is_lora_b`; names are those of files:
/// "….lora_B.weight", "….lora_embedding_A". For any optimiser, with the same learning rate. Source:
/// Hayou et al. 2024 (arXiv:2402.12354), section 4, with the groups of PEFT's
/// create_loraplus_optimizer. Deviation: norms are told by the names of their modules, there by
/// torch's class LayerNorm, so that an RMSNorm decays; the magnitude of a convolution's DoRA, of
/// one axis here and four there, belongs to A there.
/// @throws ValueError for a learning rate or a ratio that is not positive.
template <std::floating_point T>
std::vector<BasicParameterGroup<T>> lora_plus_groups(
    const std::vector<BasicNamedParameter<T>>& parameters, const LoRAPlusConfig& config) {
  if (!(config.learning_rate > 0 && config.ratio > 0))
    throw ValueError(concat("LoRA+: learning rate ", config.learning_rate, " and ratio ",
                            config.ratio, ", expected more than 0"));
  std::vector<BasicParameterGroup<T>> groups(4);
  const double ratios[] = {1, config.embedding_learning_rate / config.learning_rate, config.ratio,
                           config.ratio};
  for (std::size_t i = 0; i < 4; ++i) {
    groups[i].learning_rate_ratio = ratios[i];
    groups[i].weight_decay = i == 3 ? 0 : config.weight_decay;
  }
  const auto has = [](const std::string& name, const char* part) {
    return name.find(part) != std::string::npos;
  };
  for (const auto& named : parameters) {
    const auto& [name, parameter, given] = named;
    if (!parameter.trainable()) continue;
    const bool b = is_lora_b(named) || parameter.shape().rank() == 1;
    const std::size_t group = has(name, "lora_embedding_")                    ? 1
                              : !b                                            ? 0
                              : has(name, "bias") || detail::names_norm(name) ? 3
                                                                              : 2;
    groups[group].parameters.push_back(parameter);
  }
  return groups;
}

}  // namespace graft::inline v0_1
