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
              InitContext<T>& context);

  /// y + s · bias, or y if there is no bias.
  BasicVar<T> with_bias(const BasicVar<T>& y) const {
    return bias ? add(y, graft::scale(y.tape().parameter(bias), scaling)) : y;
  }
  /// lora_A.weight, lora_B.weight, lora_B.bias.
  std::vector<AdapterTensor<T>> tensors() const;
};

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/adapters/low_rank/impl/lora_factors_impl.hpp"
#endif
