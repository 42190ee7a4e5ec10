#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "graft/adapters/config_value.hpp"
#include "graft/config.hpp"

namespace graft::inline v0_1 {

/// Configuration of LoRA and of the variants that PEFT's LoraConfig holds; fields as there, in
/// `fields`.
struct LoRAConfig {
  Index rank = 8;      ///< r, columns of B
  double alpha = 8;    ///< scaling = alpha / rank, alpha / √rank with use_rslora
  double dropout = 0;  ///< on the input of the low-rank branch, while training
  TargetModules target_modules = {};
  bool use_rslora = false;
  std::string bias = "none";  ///< trained biases of the base: none, all, lora_only
  ConfigValue init_lora_weights =
      true;                ///< true, false, "gaussian", "orthogonal", "pissa", "olora", …
  bool lora_bias = false;  ///< a trained bias behind B
  bool fan_in_fan_out = false;
  bool use_dora = false;
  bool dora_norm_gradient = false;  ///< DoRA: let gradients through the norm; not a field of PEFT's
  ConfigValue trainable_token_indices = {};
  ConfigValue layer_replication = {};
  ConfigValue target_parameters = {};
  ConfigValue alora_invocation_tokens = {};
  ConfigValue use_bdlora = {};
  ConfigValue velora_config = {};
  ConfigValue kasa_config = {};
  ConfigValue arrow_config = {};
  ConfigValue monteclora_config = {};
  ConfigValue eva_config = {};
  ConfigValue corda_config = {};
  ConfigValue lora_ga_config = {};
  ConfigValue loftq_config = ConfigValue::Map{};
  bool use_qalora = false;
  Index qalora_group_size = 16;
  bool ensure_weight_tying = false;
  Selection select = {};

  static constexpr const char* kPeftType = "LORA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("lora_alpha", alpha);
    v("lora_dropout", dropout);
    v("target_modules", target_modules);
    v("use_rslora", use_rslora);
    v("bias", bias);
    v("init_lora_weights", init_lora_weights);
    v("lora_bias", lora_bias);
    v("fan_in_fan_out", fan_in_fan_out);
    v("use_dora", use_dora);
    optional_field(v, "dora_norm_gradient", dora_norm_gradient, false);
    v("trainable_token_indices", trainable_token_indices);
    v("layer_replication", layer_replication);
    v("target_parameters", target_parameters);
    v("alora_invocation_tokens", alora_invocation_tokens);
    v("use_bdlora", use_bdlora);
    v("velora_config", velora_config);
    v("kasa_config", kasa_config);
    v("arrow_config", arrow_config);
    v("monteclora_config", monteclora_config);
    v("eva_config", eva_config);
    v("corda_config", corda_config);
    v("lora_ga_config", lora_ga_config);
    v("loftq_config", loftq_config);
    v("use_qalora", use_qalora);
    v("qalora_group_size", qalora_group_size);
    v("ensure_weight_tying", ensure_weight_tying);
    select.fields(v);
  }

  /// @throws ValueError for a rank below one, a dropout outside of [0, 1) or an unknown word.
  void validate() const;
  /// The fields that ask for a variant of LoRA; at most one of them may.
  std::vector<std::string> variants() const;
  /// MiCA trains A alone, whether its B was made here or read.
  bool trains_b() const {
    const auto* init = init_lora_weights.get_if<std::string>();
    return init == nullptr || *init != "mica";
  }
  double scaling() const {
    return use_rslora ? alpha / std::sqrt(static_cast<double>(rank))
                      : alpha / static_cast<double>(rank);
  }
};

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/adapters/low_rank/impl/lora_config_impl.hpp"
#endif
