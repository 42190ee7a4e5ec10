#pragma once

#include <cstdlib>
#include <filesystem>

#include "support.hpp"

namespace conformance {

/// Folder where published models lie: GRAFT_MODEL_CACHE, or graft/ in the user's cache.
inline std::filesystem::path model_cache() {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::filesystem::path(value == nullptr ? "" : value);
  };
  if (const auto own = variable("GRAFT_MODEL_CACHE"); !own.empty()) return own;
  if (const auto cache = variable("XDG_CACHE_HOME"); !cache.empty()) return cache / "graft";
  return variable("HOME") / ".cache" / "graft";
}

/// The file that a case's `model` names, or an empty path: looked for by its path and by its name
/// alone.
inline std::filesystem::path find_model(const Json& model) {
  const std::filesystem::path file = model.value("file", "");
  for (const auto& path : {model_cache() / file, model_cache() / file.filename(),
                           model_cache() / model.value("pypi", "") / file})
    if (!file.empty() && std::filesystem::exists(path)) return path;
  return {};
}

}  // namespace conformance
