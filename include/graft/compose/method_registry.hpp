#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/full_copy.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/target_match.hpp"
#include "graft/compose/adapter_set.hpp"
#include "graft/compose/default_targets.hpp"

namespace graft::inline v0_1 {

/// Where a method goes, as its descriptor says by the functions that it has.
struct MethodPlaces {
  bool linear = false, embedding = false, norm = false, hidden = false, attention = false,
       prompt = false;
  bool model = false;    ///< it looks at the model as a whole
  bool by_role = false;  ///< without target modules it chooses sites by what they are
  /// The configuration names the modules, or the architecture gives them; else the method has
  /// modules of its own.
  bool named = false;
};

/// A method as the registry holds it: its description, its default configuration, and how to put it
/// on a model.
template <std::floating_point T>
struct MethodEntry {
  MethodInfo info;
  ConfigValue::Map defaults;  ///< every field that a configuration may have
  ConfigValue::Map written;   ///< the same without what files have only where it is set
  /// Makes the parts of `set` from its configuration and attaches them to the sites of `table`, not
  /// yet active.
  std::function<void(AdapterSet<T>& set, BasicSiteTable<T>& table, InitContext<T>& context)> build;
  /// Other adapters that a configuration needs on the model, with the folders of their files; empty
  /// where the method needs none.
  std::function<std::map<std::string, std::string>(const ConfigValue::Map&)> experts;
  MethodPlaces places;
  /// A configuration that does something on small layers.
  ConfigValue::Map example;
};

namespace detail {

template <class Config>
Config config_from(const ConfigValue::Map& map) {
  Config config;
  ConfigReader reader(map);
  config.fields(reader);
  if constexpr (requires { config.validate(); }) config.validate();
  return config;
}

inline std::string example_paths(const std::vector<std::string>& paths) {
  std::string text;
  for (std::size_t i = 0; i < paths.size() && i < 4; ++i) text += (i == 0 ? "" : ", ") + paths[i];
  return paths.size() > 4 ? text + ", …" : text;
}

/// Decides which sites a configuration means.
template <class Method>
class SiteFilter {
 public:
  using T = typename Method::Scalar;
  using Config = typename Method::Config;

  SiteFilter(const Config& config, const ConfigValue::Map& map, const BasicSiteTable<T>& table)
      : config_(config), map_(map), table_(&table) {
    if constexpr (requires { config.target_modules; }) {
      targets_ = config.target_modules;
      if constexpr (requires { Method::target_modules(config); })
        targets_ = Method::target_modules(config);
      // An empty list means no module at all (only parameters), nothing given the defaults.
      const auto given = map.find("target_modules");
      const bool none = given != map.end() && given->second.get_if<ConfigValue::List>() != nullptr;
      every_ = targets_.empty() && !none && requires { Method::kEverySite; };
      by_role_ = targets_.empty() && !none && chooses_by_role();
      if (targets_.empty() && !none && !every_ && !by_role_)
        targets_ = default_targets(Method::info().peft_type, table.info.architecture);
    } else {
      by_role_ = chooses_by_role();
    }
    if constexpr (requires { config.select; }) select_ = config.select;
    if constexpr (requires { config.target_parameters; })
      read_config("target_parameters", config.target_parameters, parameters_);
  }

  /// True if a parameter is meant by its whole path or the end of it.
  bool wants_parameter(const std::string& path) const {
    return std::any_of(parameters_.begin(), parameters_.end(),
                       [&](const std::string& name) { return has_suffix(path, name); });
  }
  const std::vector<std::string>& parameters() const { return parameters_; }

  bool wants(const std::string& path, bool is_linear) const {
    if constexpr (requires { Method::targets(config_, path); }) {
      if (!Method::targets(config_, path)) return false;
    } else if (!by_role_) {
      if (every_) {
        if (table_->info.is_output_layer(path)) return false;
      } else if (targets_.all_linear()) {
        if (!is_linear || table_->info.is_output_layer(path)) return false;
      } else if (!matches(targets_, path)) {
        return false;
      }
    }
    return !excludes(path) && takes_layer(select_, targets_, path);
  }
  bool excludes(const std::string& path) const {
    return !select_.exclude_modules.empty() && matches(select_.exclude_modules, path);
  }
  /// True if the configuration, or a default, names modules.
  bool by_names() const {
    return !by_role_ && !every_ && !targets_.all_linear() &&
           !requires(const std::string& path) { Method::targets(config_, path); };
  }
  /// The configuration of one site: rank and alpha may differ by pattern.
  Config site_config(const std::string& path) const {
    const auto rank = pattern_value(select_.rank_pattern, path);
    const auto alpha = pattern_value(select_.alpha_pattern, path);
    if (!rank && !alpha) return config_;
    auto map = map_;
    if (rank) map["r"] = *rank;
    if (alpha) {
      map["lora_alpha"] = *alpha;
      map["alpha"] = *alpha;
    }
    return config_from<Config>(map);
  }
  [[noreturn]] void fail(const std::vector<std::string>& paths) const {
    std::string wanted;
    if (!targets_.pattern.empty()) wanted = "'" + targets_.pattern + "'";
    for (const auto& n : targets_.names) wanted += (wanted.empty() ? "" : ", ") + n;
    throw ValueError(concat(Method::info().peft_type, ": target modules ",
                            wanted.empty() ? "(none given)" : wanted, " match none of the ",
                            paths.size(), " modules (", example_paths(paths), ")"));
  }

 private:
  static constexpr bool chooses_by_role() {
    if constexpr (requires { Method::kByRole; })
      return Method::kByRole;
    else
      return false;
  }

  Config config_;
  bool by_role_ = false;
  const ConfigValue::Map& map_;
  const BasicSiteTable<T>* table_;
  TargetModules targets_;
  bool every_ = false;  ///< every site but output layers
  std::vector<std::string> parameters_;
  Selection select_;
};

template <std::floating_point T>
LinearSiteInfo<T> linear_site_info(BasicLinearSite<T>& site, const BasicSiteTable<T>& table) {
  LinearSiteInfo<T> info;
  info.path = site.path();
  info.in_features = site.in_features();
  info.out_features = site.out_features();
  info.fan_in_fan_out = site.fan_in_fan_out;
  info.conv = site.conv;
  info.expert = site.expert;
  info.layer = layer_of(site.path());
  info.layers = table.info.layers;
  info.model = table.info;
  info.weight = [&site] { return site.base().dense_weight(); };
  info.bias = site.base().bias();
  info.weight_at = [linear = table.linear](const std::string& path) {
    const auto it = std::find_if(linear.begin(), linear.end(), [&](const auto* other) {
      return other->path() == path || other->older_path == path;
    });
    if (it == linear.end()) throw ValueError(concat("no linear site ", path));
    return (*it)->base().dense_weight();
  };
  info.replace_weight = [&site](BasicTensor<T> w) {
    site.set_base(BasicDenseLinear<T>(std::move(w), site.base().bias()));
  };
  return info;
}

template <std::floating_point T>
EmbeddingSiteInfo<T> embedding_site_info(const BasicEmbeddingSite<T>& site) {
  EmbeddingSiteInfo<T> info;
  info.path = site.path();
  info.vocabulary = site.table().rows();
  info.dim = site.table().dim();
  info.padding_index = site.padding_index;
  info.table = [&site] { return site.table().dense(); };
  return info;
}

template <class Method>
void build_method(AdapterSet<typename Method::Scalar>& set,
                  BasicSiteTable<typename Method::Scalar>& table,
                  InitContext<typename Method::Scalar>& context) {
  using T = typename Method::Scalar;
  using Config = typename Method::Config;
  const auto map = set.given_config();
  const Config config = config_from<Config>(map);
  if constexpr (requires { config.layer_replication; }) {
    if (const auto* ranges = config.layer_replication.template get_if<ConfigValue::List>()) {
      if (!table.replicate_layers)
        throw ValueError(concat(Method::info().peft_type,
                                ": layer_replication, but the model cannot repeat its layers"));
      std::vector<std::vector<Index>> pairs;
      read_config("layer_replication", *ranges, pairs);
      std::vector<std::pair<Index, Index>> list;
      for (const auto& p : pairs) {
        if (p.size() != 2) throw ValueError("layer_replication: expected pairs [start, end)");
        list.emplace_back(p[0], p[1]);
      }
      table.replicate_layers(list);
    }
  }
  const SiteFilter<Method> filter(config, map, table);
  std::vector<std::string> paths;
  bool found = false;
  const auto add_as = [&](const std::string& path, auto& site, const auto& make) {
    paths.push_back(path);
    auto part = make();
    if (!part) return;
    found = true;
    site.adapters().push_back({set.name(), part});
    set.add_part(path, part);
  };
  const auto add = [&](auto& site, const auto& make) { add_as(site.path(), site, make); };
  // The path of a linear site by which the configuration means it; empty: it does not.
  const auto meant = [&](const auto* site) -> std::string {
    if (!site->expert.parameter.empty())
      return filter.wants_parameter(site->path() + "." + site->expert.parameter) ? site->path()
                                                                                 : "";
    const std::string& older = site->older_path;
    if (!older.empty() && (filter.excludes(site->path()) || filter.excludes(older))) return "";
    // As in PEFT, "all-linear" does not mean convolutions.
    if (filter.wants(site->target_path.empty() ? site->path() : site->target_path,
                     site->conv.kernel.empty()))
      return site->path();
    return !older.empty() && filter.by_names() && filter.wants(older, true) ? older : "";
  };
  std::vector<std::pair<std::string, Shape>> all, all_embeddings;
  for (const auto* site : table.linear)
    if (const auto path = meant(site); !path.empty())
      all.emplace_back(path, Shape{site->out_features(), site->in_features()});
  if constexpr (requires(const EmbeddingSiteInfo<T>& info) {
                  Method::embedding(config, info, context);
                }) {
    for (const auto* site : table.embedding)
      if (filter.wants(site->path(), false))
        all_embeddings.emplace_back(site->path(), Shape{site->table().rows(), site->table().dim()});
    for (auto* site : table.embedding) {
      if (!filter.wants(site->path(), false)) {
        paths.push_back(site->path());
        continue;
      }
      auto info = embedding_site_info(*site);
      info.all_sites = all;
      info.all_embeddings = all_embeddings;
      add(*site,
          [&] { return Method::embedding(filter.site_config(site->path()), info, context); });
    }
  }
  if constexpr (requires(const LinearSiteInfo<T>& info) {
                  Method::linear(config, info, context);
                }) {
    // Parameters of experts, by module: the names of those that are meant.
    std::map<std::string, std::set<std::string>> parameters;
    for (auto* site : table.linear)
      if (!site->expert.parameter.empty() && !meant(site).empty())
        parameters[site->path()].insert(site->expert.parameter);
    if (!filter.parameters().empty() && parameters.empty())
      throw ValueError(concat(Method::info().peft_type, ": target parameter ",
                              filter.parameters()[0], " matches none of the model"));
    for (auto* site : table.linear) {
      const auto path = meant(site);
      if (path.empty()) {
        paths.push_back(site->path());
        continue;
      }
      auto info = linear_site_info(*site, table);
      info.path = path;
      info.all_sites = all;
      info.all_embeddings = all_embeddings;
      if (!site->expert.parameter.empty()) {
        const auto& names = parameters[site->path()];
        info.nesting = std::distance(names.upper_bound(site->expert.parameter), names.end());
      }
      add_as(path, *site, [&] { return Method::linear(filter.site_config(path), info, context); });
    }
  }
  if constexpr (requires(const NormSiteInfo<T>& info) { Method::norm(config, info, context); }) {
    constexpr bool all_or_none = requires { Method::trains_norms(config); };
    bool every_norm = false;
    if constexpr (all_or_none) every_norm = Method::trains_norms(config);
    for (auto* site : table.norm) {
      if (all_or_none ? !every_norm : !filter.wants(site->path(), false)) {
        paths.push_back(site->path());
        continue;
      }
      NormSiteInfo<T> info{site->path(), site->norm(),
                           site->norm().weight ? site->norm().weight.size() : 0};
      const bool before = found;
      add(*site, [&] { return Method::norm(filter.site_config(site->path()), info, context); });
      if (all_or_none) found = before;
    }
  }
  if constexpr (requires(const HiddenSiteInfo<T>& info) {
                  Method::hidden(config, info, context);
                }) {
    for (auto* site : table.hidden) {
      if (!filter.wants(site->path(), false)) {
        paths.push_back(site->path());
        continue;
      }
      HiddenSiteInfo<T> info{site->path(), site->width(), layer_of(site->path()),
                             table.info,   site->role(),  site->output_name(),
                             site->norm()};
      add(*site, [&] { return Method::hidden(filter.site_config(site->path()), info, context); });
    }
  }
  if constexpr (requires(const AttentionSiteInfo<T>& info) {
                  Method::attention(config, info, context);
                }) {
    std::vector<std::string> all_attentions;
    for (const auto* site : table.attention)
      if (filter.wants(site->path(), false)) all_attentions.push_back(site->path());
    for (auto* site : table.attention) {
      if (!filter.wants(site->path(), false)) {
        paths.push_back(site->path());
        continue;
      }
      AttentionSiteInfo<T> info{site->path(),   site->layer, site->heads, site->kv_heads,
                                site->head_dim, site->role,  table.info,  all_attentions};
      add(*site, [&] { return Method::attention(config, info, context); });
    }
  }
  if constexpr (requires(const PromptSiteInfo<T>& info) {
                  Method::prompt(config, info, context);
                }) {
    if (table.prompt == nullptr)
      throw ValueError(
          concat(Method::info().peft_type, ": the model has no place for virtual tokens"));
    PromptSiteInfo<T> info{table.prompt->path(), table.prompt->dim(), table.info, {}};
    if (!table.embedding.empty()) {
      const auto* site = table.embedding.front();
      info.embed = [site](std::span<const std::int32_t> ids) {
        auto rows = site->table().lookup(ids);
        if (site->embed_scale != T{1})
          for (T& v : rows) v *= site->embed_scale;
        return rows;
      };
    }
    add(*table.prompt, [&] { return Method::prompt(config, info, context); });
  }
  if (context.parts_made) context.parts_made();
  if constexpr (requires { Method::procedure(config, set.parts()); })
    set.set_procedure(Method::procedure(config, set.parts()));
  if constexpr (requires { Method::finish(config, set, table, context); })
    Method::finish(config, set, table, context);
  constexpr bool beside = requires { Method::trains_norms(config); };
  if (!found && (beside || set.parts().empty())) filter.fail(paths);
}

template <class Method>
MethodPlaces places_of() {
  using T = typename Method::Scalar;
  using Config = typename Method::Config;
  using Init = InitContext<T>&;
  MethodPlaces p;
  const Config* c = nullptr;
  p.linear = requires(const LinearSiteInfo<T>& s, Init i) { Method::linear(*c, s, i); };
  p.embedding = requires(const EmbeddingSiteInfo<T>& s, Init i) { Method::embedding(*c, s, i); };
  p.norm = requires(const NormSiteInfo<T>& s, Init i) { Method::norm(*c, s, i); };
  p.hidden = requires(const HiddenSiteInfo<T>& s, Init i) { Method::hidden(*c, s, i); };
  p.attention = requires(const AttentionSiteInfo<T>& s, Init i) { Method::attention(*c, s, i); };
  p.prompt = requires(const PromptSiteInfo<T>& s, Init i) { Method::prompt(*c, s, i); };
  p.model = requires(AdapterSet<T>& set, BasicSiteTable<T>& table, Init i) {
    Method::finish(*c, set, table, i);
  };
  if constexpr (requires { Method::kByRole; }) p.by_role = Method::kByRole;
  bool own = p.by_role || !p.linear;
  if constexpr (requires { Method::kOwnModules; }) own = own || Method::kOwnModules;
  p.named = !own && requires(const Config& config) { config.target_modules; } && !requires {
    Method::kEverySite;
  } && !requires(const std::string& path) { Method::targets(*c, path); };
  return p;
}

/// A configuration with the fields of the method: all, or those that files always have.
template <class Config>
ConfigValue::Map default_config(std::string_view peft_type, Config config = {}, bool every = true) {
  ConfigValue::Map map;
  ConfigWriter writer(map, every);
  config.fields(writer);
  map["peft_type"] = std::string(peft_type);
  return map;
}

}  // namespace detail

/// Methods by their `peft_type`.
template <std::floating_point T>
class MethodRegistry {
 public:
  template <class... Methods>
  MethodRegistry& add(MethodList<Methods...>) {
    (add_one<Methods>(), ...);
    return *this;
  }
  const std::vector<MethodEntry<T>>& entries() const { return entries_; }
  /// @throws ValueError that lists what there is.
  const MethodEntry<T>& at(std::string_view peft_type) const {
    for (const auto& e : entries_)
      if (e.info.peft_type == peft_type) return e;
    std::string known;
    for (const auto& e : entries_)
      known += (known.empty() ? "" : ", ") + std::string(e.info.peft_type);
    throw ValueError(concat("peft_type '", peft_type, "' is not known; known are ", known));
  }
  bool contains(std::string_view peft_type) const {
    return std::any_of(entries_.begin(), entries_.end(),
                       [&](const auto& e) { return e.info.peft_type == peft_type; });
  }

 private:
  template <class Method>
  void add_one() {
    using Config = typename Method::Config;
    entries_.push_back({Method::info(),
                        detail::default_config<Config>(Method::info().peft_type),
                        detail::default_config<Config>(Method::info().peft_type, {}, false),
                        &detail::build_method<Method>,
                        {},
                        detail::places_of<Method>(),
                        {}});
    auto& entry = entries_.back();
    entry.example = entry.defaults;
    if constexpr (requires { Method::example(); })
      entry.example = detail::default_config(entry.info.peft_type, Method::example());
    if constexpr (requires(const Config& config) { Method::experts(config); })
      entry.experts = [](const ConfigValue::Map& map) {
        return Method::experts(detail::config_from<Config>(map));
      };
  }
  std::vector<MethodEntry<T>> entries_;
};

}  // namespace graft::inline v0_1
