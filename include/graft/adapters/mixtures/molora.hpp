#pragma once

#include <optional>
#include <string>
#include <vector>

#include "graft/adapters/adapted.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/mixtures/router.hpp"

namespace graft::inline v0_1 {

/// Configuration of MoLoRA.
struct MoLoRAConfig {
  Index num_experts = 10;
  std::optional<Index> top_k = {};  ///< none: all experts
  Index rank = 4;
  double alpha = 16;
  double dropout = 0;  ///< on the input of the experts, while training
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "MOLORA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("num_experts", num_experts);
    v("top_k", top_k);
    v("r", rank);
    v("lora_alpha", alpha);
    v("lora_dropout", dropout);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for counts below one or a dropout outside of [0, 1).
  void validate() const {
    detail::require_experts("MoLoRA", num_experts, top_k.value_or(1), rank);
    detail::require_dropout("MoLoRA", dropout);
  }
};

/// MoLoRA: y = base(x) + s Σ_e p_e x A_eᵀ B_eᵀ, p = softmax(x W_rᵀ + b_r): all experts, mixed token
/// by token; with top_k only the k likeliest, their probabilities as they are.
///
/// A: [N, r, in], B: [N, out, r], W_r: [N, in], b_r: [N], s = alpha / r; trained: N r (in + out) +
/// N in + N. The identity at the start (B and b_r zero, A and W_r N(0, 0.02)). Does not merge.
/// Source: Zadouri et al. 2023 (arXiv:2309.05444), section 3. Tensors: lora_A, lora_B,
/// router.{weight, bias}.
template <std::floating_point T>
class BasicMoLoRA {
 public:
  using Scalar = T;
  using Config = MoLoRAConfig;

  BasicMoLoRA(const MoLoRAConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : top_k_(config.top_k.value_or(config.num_experts)), dropout_(config.dropout) {
    config.validate();
    detail::require_plain("MoLoRA", site);
    experts_ = {config.num_experts, config.rank, config.alpha, site.in_features,
                site.out_features,  context,     0.02};
    router_ = {config.num_experts, site.in_features, true, 0.02, context};
  }

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    const auto rows = detail::as_rows(x);
    const auto r = route(router_(rows), top_k_, false);
    const auto delta = experts_.mixed(experts_.low(graft::dropout(rows, dropout_)), r.weights);
    const auto y = linear(base, x);
    return add(y, reshape(delta, y.shape()));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    experts_.list(list);
    router_.list(list);
    return list;
  }
  std::string merge_reason() const {
    return "MoLoRA mixes its experts token by token; a weight cannot hold that";
  }
  static MethodInfo info() {
    return {.peft_type = "MOLORA",
            .name = "MoLoRA",
            .family = "mixtures",
            .paper = "arXiv:2309.05444",
            .sites = "linear",
            .parameters = "num_experts (r (in + out) + in + 1)",
            .mergeable = false,
            .in_peft = false};
  }

 private:
  Index top_k_;
  double dropout_;
  LoRAExperts<T> experts_;
  ExpertRouter<T> router_;
};

using MoLoRA = BasicMoLoRA<float>;

}  // namespace graft::inline v0_1
