#pragma once

#include <algorithm>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graft/adapters/config_value.hpp"
#include "graft/adapters/target_match.hpp"
#include "graft/compose/default_targets.hpp"
#include "graft/layers/sites/site_table.hpp"

namespace graft::inline v0_1 {

/// Where a configuration of a method goes, without the type of either.
struct SiteRules {
  std::string_view peft_type;
  bool has_targets = false;    ///< the configuration can name target modules
  TargetModules targets = {};  ///< those that it names
  bool every_site = false;     ///< without targets: every site but output layers
  bool by_role = false;        ///< without targets the method chooses sites by what they are
  /// The method's own choice by path, in place of targets; null: it has none.
  std::function<bool(const std::string&)> chooses = nullptr;
  Selection select = {};
  std::vector<std::string> parameters = {};  ///< of experts
};

/// Decides which sites a configuration means.
class SiteFilter {
 public:
  /// `map` is the configuration that the rules are of.
  SiteFilter(SiteRules rules, ConfigValue::Map map, const ModelInfo& model)
      : rules_(std::move(rules)), map_(std::move(map)), model_(model) {
    if (!rules_.has_targets) return;
    // An empty list means no module at all (only parameters), nothing given the defaults.
    const auto given = map_.find("target_modules");
    const bool none = given != map_.end() && given->second.get_if<ConfigValue::List>() != nullptr;
    const bool open = rules_.targets.empty() && !none;
    rules_.every_site = rules_.every_site && open;
    rules_.by_role = rules_.by_role && open;
    if (open && !rules_.every_site && !rules_.by_role)
      rules_.targets = default_targets(rules_.peft_type, model.architecture);
  }

  /// True if a parameter is meant by its whole path or the end of it.
  bool wants_parameter(const std::string& path) const {
    return std::any_of(rules_.parameters.begin(), rules_.parameters.end(),
                       [&](const std::string& name) { return has_suffix(path, name); });
  }
  const std::vector<std::string>& parameters() const { return rules_.parameters; }

  bool wants(const std::string& path, bool is_linear) const {
    if (rules_.chooses) {
      if (!rules_.chooses(path)) return false;
    } else if (!rules_.by_role) {
      if (rules_.every_site) {
        if (model_.is_output_layer(path)) return false;
      } else if (rules_.targets.all_linear()) {
        if (!is_linear || model_.is_output_layer(path)) return false;
      } else if (!matches(rules_.targets, path)) {
        return false;
      }
    }
    return !excludes(path) && takes_layer(rules_.select, rules_.targets, path);
  }
  bool excludes(const std::string& path) const {
    return !rules_.select.exclude_modules.empty() && matches(rules_.select.exclude_modules, path);
  }
  /// True if the configuration, or a default, names modules.
  bool by_names() const {
    return !rules_.by_role && !rules_.every_site && !rules_.targets.all_linear() && !rules_.chooses;
  }
  /// The configuration of one site where it is not that of the adapter: rank and alpha may differ
  /// by pattern.
  std::optional<ConfigValue::Map> config_of(const std::string& path) const {
    const auto rank = pattern_value(rules_.select.rank_pattern, path);
    const auto alpha = pattern_value(rules_.select.alpha_pattern, path);
    if (!rank && !alpha) return std::nullopt;
    auto map = map_;
    if (rank) map["r"] = *rank;
    if (alpha) {
      map["lora_alpha"] = *alpha;
      map["alpha"] = *alpha;
    }
    return map;
  }
  /// @throws ValueError: none of `paths`, the modules that there are, is meant.
  [[noreturn]] void fail(const std::vector<std::string>& paths) const {
    std::string wanted, some;
    if (!rules_.targets.pattern.empty()) wanted = "'" + rules_.targets.pattern + "'";
    for (const auto& n : rules_.targets.names) wanted += (wanted.empty() ? "" : ", ") + n;
    for (std::size_t i = 0; i < paths.size() && i < 4; ++i) some += (i == 0 ? "" : ", ") + paths[i];
    if (paths.size() > 4) some += ", …";
    throw ValueError(concat(rules_.peft_type, ": target modules ",
                            wanted.empty() ? "(none given)" : wanted, " match none of the ",
                            paths.size(), " modules (", some, ")"));
  }

 private:
  SiteRules rules_;
  ConfigValue::Map map_;
  ModelInfo model_;
};

}  // namespace graft::inline v0_1
