#pragma once

#include "graft/adapters/low_rank/lora.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicLoRA<T>::BasicLoRA(const LoRAConfig& config, const LinearSiteInfo<T>& site,
                        InitContext<T>& context)
    : rank_(config.rank),
      dropout_(config.dropout),
      scaling_(static_cast<T>(config.scaling())),
      conv_(site.conv),
      expert_(site.expert) {
  config.validate();
  if (rank_ % conv_.groups != 0)
    throw ValueError(concat("LoRA: rank ", rank_, " of ", site.path, ", expected a multiple of ",
                            conv_.groups, " groups"));
  if (!expert_.parameter.empty()) {
    for (Index i = 0; i < site.nesting; ++i) prefix_ += "base_layer.";
    if (config.dropout > 0 || config.lora_bias || config.fan_in_fan_out)
      throw ValueError(
          concat("LoRA: dropout, lora_bias and fan_in_fan_out do not exist on the "
                 "parameter ",
                 expert_.parameter, " of ", site.path));
    const std::string key = concat(site.path, ".", expert_.parameter, ".");
    if (!context.shared.contains(key + "A")) {
      auto factors = initial_factors(config, site, context);
      a_ = context.shared.get(key + "A", [&] { return factors.a; });
      b_ = context.shared.get(
          key + "B", [&] { return factors.b; }, config.trains_b());
    } else {
      a_ = context.shared.get(key + "A", [] { return BasicTensor<T>{}; });
      b_ = context.shared.get(key + "B", [] { return BasicTensor<T>{}; });
    }
    return;
  }
  auto factors = initial_factors(config, site, context);
  a_ = BasicParameter<T>(factors.a);
  b_ = BasicParameter<T>(factors.b, config.trains_b());
  if (conv_.groups > 1) {
    const Index out = site.out_features, width = rank_ / conv_.groups;
    for (Index o = 0; o < out; ++o)
      for (Index k = 0; k < width; ++k)
        group_positions_.push_back(o * rank_ + o / (out / conv_.groups) * width + k);
  }
  if (factors.bias) bias_ = BasicParameter<T>(factors.bias);
}

template <std::floating_point T>
std::vector<AdapterTensor<T>> BasicLoRA<T>::tensors() const {
  std::vector<AdapterTensor<T>> list(2);
  list[0] = {.name = prefix_ + "lora_A.weight",
             .parameter = a_,
             .index = {},
             .file_shape = conv_.weight_shape(rank_, conv_.in_channels),
             .group = "lora_A"};
  list[1] = {.name = prefix_ + "lora_B.weight",
             .parameter = b_,
             .index = {},
             .file_shape = conv_.pointwise_shape(b_.shape()[0], rank_ / conv_.groups),
             .group = "lora_B"};
  if (bias_)
    list.push_back({.name = "lora_B.bias",
                    .parameter = bias_,
                    .index = {},
                    .file_shape = {},
                    .group = "lora_B"});
  return list;
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
template class BasicLoRA<float>;
template class BasicLoRA<double>;
#endif

}  // namespace graft::inline v0_1
