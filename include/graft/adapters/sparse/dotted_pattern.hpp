#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "graft/adapters/config_value.hpp"
#include "graft/adapters/target_match.hpp"

namespace graft::inline v0_1::detail {

/// Value of the first pattern that matches what follows a dot of the path, else that of the path
/// itself: the rule of PEFT's C3A and FourierFT, where "f.*" does not mean a module "fc1" at the
/// top.
inline std::optional<ConfigValue> dotted_pattern_value(
    const std::map<std::string, ConfigValue>& patterns, std::string_view path) {
  for (const auto& [pattern, value] : patterns)
    if (full_match(".*\\." + pattern, path)) return value;
  const auto own = patterns.find(std::string(path));
  return own == patterns.end() ? std::nullopt : std::optional(own->second);
}

}  // namespace graft::inline v0_1::detail
