#pragma once

#include <algorithm>
#include <cctype>
#include <optional>
#include <string>
#include <string_view>

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

/// Number of the layer in a path: the first whole part that is a number, behind one of `patterns`
/// if there are any. "model.layers.11.self_attn.q_proj" is 11; -1 if there is none.
inline Index layer_of(std::string_view path, const std::vector<std::string>& patterns = {}) {
  std::string_view before;
  for (std::size_t start = 0; start <= path.size();) {
    const auto dot = std::min(path.find('.', start), path.size());
    const std::string_view part = path.substr(start, dot - start);
    const bool number =
        !part.empty() && part.size() < 10 &&
        std::all_of(part.begin(), part.end(), [](char c) { return c >= '0' && c <= '9'; });
    if (number && !before.empty() &&
        (patterns.empty() || std::find(patterns.begin(), patterns.end(), before) != patterns.end()))
      return std::stol(std::string(part));
    before = part;
    start = dot + 1;
  }
  return -1;
}

/// Value of the first pattern of a rank_pattern or alpha_pattern that matches the end of the path.
inline std::optional<ConfigValue> pattern_value(const std::map<std::string, ConfigValue>& patterns,
                                                std::string_view path) {
  for (const auto& [pattern, value] : patterns)
    if (full_match("(.*\\.)?(" + pattern + ")", path)) return value;
  return std::nullopt;
}

}  // namespace graft::inline v0_1
