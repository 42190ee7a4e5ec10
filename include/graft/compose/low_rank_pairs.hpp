#pragma once

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "graft/adapters/target_match.hpp"
#include "graft/autograd/low_rank_term.hpp"
#include "graft/compose/adapter_set.hpp"

namespace graft::inline v0_1 {

/// The trained parameters of an adapter with their names in files, each once.
template <std::floating_point T>
std::vector<BasicNamedParameter<T>> named_parameters(const AdapterSet<T>& set) {
  std::vector<BasicNamedParameter<T>> list;
  for (const auto& [key, tensor] : set.tensors())
    if (tensor.parameter && tensor.parameter.trainable() && !tensor.alias)
      list.push_back({key, tensor.parameter, tensor.group});
  return list;
}

/// The pairs (A, B) of an adapter of LoRA's kind with the scaling of their product, for
/// optimisers that look at both. LoRA on embeddings has none.
template <std::floating_point T>
std::vector<LowRankTerm<T>> low_rank_pairs(const AdapterSet<T>& set) {
  const auto& config = set.given_config();
  const auto number = [&](const char* key, double standard) {
    const auto it = config.find(key);
    return it != config.end() && it->second.is_number() ? it->second.number() : standard;
  };
  const auto by_site = [&](const char* key, const std::string& path, double standard) {
    std::map<std::string, ConfigValue> pattern;
    if (const auto it = config.find(key); it != config.end())
      detail::read_config(key, it->second, pattern);
    const auto value = pattern_value(pattern, path);
    return value && value->is_number() ? value->number() : standard;
  };
  const auto flag = config.find("use_rslora");
  const bool* rslora = flag == config.end() ? nullptr : flag->second.template get_if<bool>();
  std::vector<LowRankTerm<T>> pairs;
  for (const auto& placed : set.parts()) {
    LowRankTerm<T> pair;
    for (const auto& tensor : placed.part->tensors()) {
      const bool matrix = tensor.parameter && tensor.parameter.shape().rank() == 2;
      if (matrix && tensor.group == "lora_A") pair.a = tensor.parameter;
      if (matrix && tensor.group == "lora_B") pair.b = tensor.parameter;
    }
    if (!pair.a || !pair.b || pair.a.shape()[0] != pair.b.shape()[1]) continue;
    const auto* part = dynamic_cast<const LinearPart<T>*>(placed.part.get());
    if (const auto term = part == nullptr ? std::nullopt : part->low_rank_term()) {
      pair.scaling = term->scaling;
    } else {
      const double r = by_site("rank_pattern", placed.path, number("r", 8)),
                   alpha = by_site("alpha_pattern", placed.path, number("lora_alpha", 8));
      pair.scaling = static_cast<T>(alpha / (rslora != nullptr && *rslora ? std::sqrt(r) : r));
    }
    pairs.push_back(pair);
  }
  return pairs;
}

}  // namespace graft::inline v0_1
