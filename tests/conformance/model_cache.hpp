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

/// The file or folder that a case's `model` names.
inline std::filesystem::path model_name(const Json& model) {
  return model.contains("folder") ? model.value("folder", "") : model.value("file", "");
}

/// The same in the cache, looked for by its path and by its name alone; empty if it is not there.
inline std::filesystem::path find_model(const Json& model) {
  const std::filesystem::path name = model_name(model);
  if (name.empty()) return {};
  for (const auto& path : {model_cache() / name, model_cache() / name.filename(),
                           model_cache() / model.value("pypi", "") / name})
    if (std::filesystem::exists(path)) return path;
  return {};
}

}  // namespace conformance
