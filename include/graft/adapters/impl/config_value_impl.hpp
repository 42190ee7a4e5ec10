#pragma once

#include "graft/adapters/config_value.hpp"

namespace graft::inline v0_1 {

GRAFT_KERNEL ConfigValue::ConfigValue(const ConfigValue&) = default;
GRAFT_KERNEL ConfigValue::ConfigValue(ConfigValue&&) noexcept = default;
GRAFT_KERNEL ConfigValue& ConfigValue::operator=(const ConfigValue&) = default;
GRAFT_KERNEL ConfigValue& ConfigValue::operator=(ConfigValue&&) noexcept = default;
GRAFT_KERNEL ConfigValue::~ConfigValue() = default;

GRAFT_KERNEL const ConfigValue* ConfigReader::find(const char* key) const {
  const auto it = map_.find(key);
  return it == map_.end() ? nullptr : &it->second;
}

GRAFT_KERNEL void ConfigWriter::put(const char* key, ConfigValue value) const {
  map_[key] = std::move(value);
}

namespace detail {

[[noreturn]] GRAFT_KERNEL void config_mismatch(const std::string& key, const char* expected,
                                               const ConfigValue& found) {
  throw ValueError(
      concat("config field '", key, "': expected ", expected, ", found ", found.kind()));
}

GRAFT_KERNEL void read_config(const std::string& key, const ConfigValue& v, bool& out) {
  if (const auto* b = v.get_if<bool>())
    out = *b;
  else
    config_mismatch(key, "a boolean", v);
}

GRAFT_KERNEL void read_config(const std::string& key, const ConfigValue& v, std::string& out) {
  if (const auto* s = v.get_if<std::string>())
    out = *s;
  else
    config_mismatch(key, "a text", v);
}

GRAFT_KERNEL void read_config(const std::string& key, const ConfigValue& v, TargetModules& out) {
  if (v.is_null())
    out = {};
  else if (const auto* s = v.get_if<std::string>())
    out = TargetModules(*s);
  else if (v.get_if<ConfigValue::List>() != nullptr) {
    out = {};
    read_config(key, v, out.names);
  } else
    config_mismatch(key, "a text or a list of texts", v);
}

GRAFT_KERNEL ConfigValue write_config(const TargetModules& targets) {
  if (!targets.pattern.empty()) return targets.pattern;
  if (targets.names.empty()) return nullptr;
  ConfigValue::List list;
  for (const auto& name : targets.names) list.emplace_back(name);
  return list;
}

}  // namespace detail
}  // namespace graft::inline v0_1
