#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "graft/adapters/config_value.hpp"
#include "graft/text/regex.hpp"

/// Which modules a configuration means, by the rules of Hugging Face PEFT.
namespace graft::inline v0_1 {

/// True if the whole of `text` matches the regular expression. @throws ValueError for a pattern
/// that does not compile.
inline bool full_match(const std::string& pattern, std::string_view text) {
  bool found = false;
  text::Regex("\\A(?:" + pattern + ")\\z").for_each_match(text, [&](auto&&...) { found = true; });
  return found;
}

/// Last part of a path.
inline std::string_view last_part(std::string_view path) {
  const auto dot = path.rfind('.');
  return dot == std::string_view::npos ? path : path.substr(dot + 1);
}

/// True if `path` is `name` or ends in "." + name.
inline bool has_suffix(std::string_view path, std::string_view name) {
  return path == name || (path.size() > name.size() && path.ends_with(name) &&
                          path[path.size() - name.size() - 1] == '.');
}

/// A list matches by suffix, a pattern the whole path. "all-linear" is not looked at here.
inline bool matches(const TargetModules& targets, std::string_view path) {
  if (!targets.pattern.empty()) return full_match(targets.pattern, path);
  return std::any_of(targets.names.begin(), targets.names.end(),
                     [&](const std::string& name) { return has_suffix(path, name); });
}

/// Number of the layer in a path: the first whole part that is a number. With `patterns`, the first
/// behind something that ends with a match of the first pattern that has one, so that
/// "decoder.block" tells the stacks of T5 apart. "model.layers.11.self_attn.q_proj" is 11; -1 if
/// there is none. @throws ValueError for a pattern that does not compile.
inline Index layer_of(std::string_view path, const std::vector<std::string>& patterns = {}) {
  const auto first_behind = [path](const auto& fits) -> Index {
    for (std::size_t start = path.find('.') + 1; start > 0; start = path.find('.', start) + 1) {
      const std::string_view part = path.substr(start, path.find('.', start) - start);
      const bool number =
          !part.empty() && part.size() < 10 &&
          std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; });
      if (number && fits(path.substr(0, start - 1))) return std::stol(std::string(part));
    }
    return -1;
  };
  if (patterns.empty()) return first_behind([](std::string_view) { return true; });
  for (const auto& pattern : patterns) {
    const Index layer = first_behind([&pattern](std::string_view before) {
      return has_suffix(before, pattern) || full_match("(?:.*\\.)?(?:" + pattern + ")", before);
    });
    if (layer >= 0) return layer;
  }
  return -1;
}

/// False for a path in another layer than those to transform. A path that `targets` names whole is
/// taken wherever it is, as in PEFT.
inline bool takes_layer(const Selection& select, const TargetModules& targets,
                        std::string_view path) {
  const auto& layers = select.layers_to_transform;
  return layers.empty() ||
         std::find(targets.names.begin(), targets.names.end(), path) != targets.names.end() ||
         std::find(layers.begin(), layers.end(), layer_of(path, select.layers_pattern)) !=
             layers.end();
}

/// Value of the first pattern of a rank_pattern or alpha_pattern that matches the end of the path.
/// They are in the order of the alphabet, in which PEFT writes them too.
inline std::optional<ConfigValue> pattern_value(const std::map<std::string, ConfigValue>& patterns,
                                                std::string_view path) {
  for (const auto& [pattern, value] : patterns)
    if (full_match("(.*\\.)?(" + pattern + ")", path)) return value;
  return std::nullopt;
}

}  // namespace graft::inline v0_1
