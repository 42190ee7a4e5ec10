#pragma once

#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/adapter.hpp"
#include "graft/adapters/low_rank/lora_config.hpp"
#include "graft/adapters/low_rank/lora_init.hpp"

namespace graft::inline v0_1 {

/// What the variants of LoRA at plain linear layers have in common: A [rank, in], B [out, rank], an
/// optional bias behind B, dropout and scaling.
template <std::floating_point T>
struct LoRAFactors {
  Index rank = 0;
  double dropout = 0;
  T scaling = 1;
  BasicParameter<T> a, b, bias;

  LoRAFactors() = default;
  /// Draws the factors. @throws ValueError for a convolution or the parameter of experts, where
  /// `variant` does not exist.
  LoRAFactors(const char* variant, const LoRAConfig& config, const LinearSiteInfo<T>& site,
              InitContext<T>& context)
      : rank(config.rank), dropout(config.dropout), scaling(static_cast<T>(config.scaling())) {
    config.validate();
    if (!site.conv.kernel.empty() || !site.expert.parameter.empty())
      throw ValueError(
          concat("LoRA: ", variant, " at ", site.path, ", expected a plain linear layer"));
    auto factors = initial_factors(config, site, context);
    a = BasicParameter<T>(factors.a);
    b = BasicParameter<T>(factors.b);
    if (factors.bias) bias = BasicParameter<T>(factors.bias);
  }

  /// y + s · bias, or y if there is no bias.
  BasicVar<T> with_bias(const BasicVar<T>& y) const {
    return bias ? add(y, graft::scale(y.tape().parameter(bias), scaling)) : y;
  }
  /// lora_A.weight, lora_B.weight, lora_B.bias.
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    const auto entry = [&](const char* name, const BasicParameter<T>& p, const char* group) {
      if (p)
        list.push_back(
            {.name = name, .parameter = p, .index = {}, .file_shape = {}, .group = group});
    };
    entry("lora_A.weight", a, "lora_A");
    entry("lora_B.weight", b, "lora_B");
    entry("lora_B.bias", bias, "lora_B");
    return list;
  }
};

}  // namespace graft::inline v0_1
