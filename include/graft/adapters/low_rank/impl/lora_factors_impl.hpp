#pragma once

#include "graft/adapters/low_rank/lora_factors.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
LoRAFactors<T>::LoRAFactors(const char* variant, const LoRAConfig& config,
                            const LinearSiteInfo<T>& site, InitContext<T>& context)
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

template <std::floating_point T>
std::vector<AdapterTensor<T>> LoRAFactors<T>::tensors() const {
  std::vector<AdapterTensor<T>> list;
  const auto entry = [&](const char* name, const BasicParameter<T>& p, const char* group) {
    if (p)
      list.push_back({.name = name, .parameter = p, .index = {}, .file_shape = {}, .group = group});
  };
  entry("lora_A.weight", a, "lora_A");
  entry("lora_B.weight", b, "lora_B");
  entry("lora_B.bias", bias, "lora_B");
  return list;
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
template struct LoRAFactors<float>;
template struct LoRAFactors<double>;
#endif

}  // namespace graft::inline v0_1
