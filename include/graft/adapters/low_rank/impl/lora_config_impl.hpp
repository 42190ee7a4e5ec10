#pragma once

#include "graft/adapters/low_rank/lora_config.hpp"

namespace graft::inline v0_1 {

GRAFT_KERNEL void LoRAConfig::validate() const {
  if (rank < 1) throw ValueError(concat("LoRA: rank ", rank, ", expected at least 1"));
  if (!(dropout >= 0 && dropout < 1))
    throw ValueError(concat("LoRA: dropout ", dropout, ", expected [0, 1)"));
  if (bias != "none" && bias != "all" && bias != "lora_only")
    throw ValueError(concat("LoRA: bias '", bias, "', expected none, all or lora_only"));
  const auto all = variants();
  if (all.size() > 1)
    throw ValueError(concat("LoRA: ", all[0], " and ", all[1], " cannot be combined"));
}

GRAFT_KERNEL std::vector<std::string> LoRAConfig::variants() const {
  std::vector<std::string> list;
  const auto ask = [&](bool set, const char* field) {
    if (set) list.emplace_back(field);
  };
  const auto given = [](const ConfigValue& value) {
    const auto* flag = value.get_if<bool>();
    const auto* items = value.get_if<ConfigValue::List>();
    return !value.is_null() && (flag == nullptr || *flag) && (items == nullptr || !items->empty());
  };
  ask(use_dora, "use_dora");
  ask(use_qalora, "use_qalora");
  ask(given(alora_invocation_tokens), "alora_invocation_tokens");
  ask(given(use_bdlora), "use_bdlora");
  ask(given(velora_config), "velora_config");
  ask(given(kasa_config), "kasa_config");
  ask(given(arrow_config), "arrow_config");
  ask(given(monteclora_config), "monteclora_config");
  ask(!trains_b(), "init_lora_weights 'mica'");
  return list;
}

}  // namespace graft::inline v0_1
