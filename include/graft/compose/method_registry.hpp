#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graft/adapters/method.hpp"
#include "graft/compose/adapter_set.hpp"
#include "graft/compose/configured_method.hpp"
#include "graft/compose/site_filter.hpp"

namespace graft::inline v0_1 {

/// A method as the registry holds it: its description, its default configuration, and how to put it
/// on a model.
template <std::floating_point T>
struct MethodEntry {
  MethodInfo info;
  ConfigValue::Map defaults;  ///< every field that a configuration may have
  ConfigValue::Map written;   ///< the same without what files have only where it is set
  /// The method with a configuration, for a model.
  std::unique_ptr<ConfiguredMethod<T>> (*configure)(const ConfigValue::Map&,
                                                    const ModelInfo&) = nullptr;
  /// Other adapters that a configuration needs on the model, with the folders of their files; empty
  /// where the method needs none.
  std::function<std::map<std::string, std::string>(const ConfigValue::Map&)> experts;
  MethodPlaces places;
  /// A configuration that does something on small layers.
  ConfigValue::Map example;

  /// Makes the parts of `set` from its configuration and attaches them to the sites of `table`, not
  /// yet active.
  void build(AdapterSet<T>& set, BasicSiteTable<T>& table, InitContext<T>& context) const {
    build_parts(*configure(set.given_config(), table.info), set, table, context);
  }
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

/// What a method and its configuration say about where it goes.
template <class Method, class Config = typename Method::Config>
SiteRules site_rules(const Config& config) {
  SiteRules rules{.peft_type = Method::info().peft_type};
  if constexpr (requires { Method::kByRole; }) rules.by_role = Method::kByRole;
  if constexpr (requires { config.target_modules; }) {
    rules.has_targets = true;
    rules.every_site = requires { Method::kEverySite; };
    if constexpr (requires { Method::target_modules(config); })
      rules.targets = Method::target_modules(config);
    else
      rules.targets = config.target_modules;
  }
  if constexpr (requires(const std::string& path) { Method::targets(config, path); })
    rules.chooses = [config](const std::string& path) { return Method::targets(config, path); };
  if constexpr (requires { config.select; }) rules.select = config.select;
  if constexpr (requires { config.target_parameters; })
    read_config("target_parameters", config.target_parameters, rules.parameters);
  return rules;
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

/// A descriptor's functions behind ConfiguredMethod.
template <class Method>
class ConfiguredMethodOf final : public ConfiguredMethod<typename Method::Scalar> {
 public:
  using T = typename Method::Scalar;
  using Config = typename Method::Config;
  using Context = InitContext<T>;

  ConfiguredMethodOf(const ConfigValue::Map& map, const ModelInfo& model)
      : ConfiguredMethodOf(config_from<Config>(map), map, model) {}

  MethodPlaces places() const override { return places_of<Method>(); }
  std::shared_ptr<LinearPart<T>> linear(const LinearSiteInfo<T>& site,
                                        Context& context) const override {
    if constexpr (requires { Method::linear(config_, site, context); })
      return Method::linear(at(site.path), site, context);
    else
      return nullptr;
  }
  std::shared_ptr<EmbeddingPart<T>> embedding(const EmbeddingSiteInfo<T>& site,
                                              Context& context) const override {
    if constexpr (requires { Method::embedding(config_, site, context); })
      return Method::embedding(at(site.path), site, context);
    else
      return nullptr;
  }
  std::shared_ptr<NormPart<T>> norm(const NormSiteInfo<T>& site, Context& context) const override {
    if constexpr (requires { Method::norm(config_, site, context); })
      return Method::norm(at(site.path), site, context);
    else
      return nullptr;
  }
  std::shared_ptr<HiddenPart<T>> hidden(const HiddenSiteInfo<T>& site,
                                        Context& context) const override {
    if constexpr (requires { Method::hidden(config_, site, context); })
      return Method::hidden(at(site.path), site, context);
    else
      return nullptr;
  }
  std::shared_ptr<AttentionPart<T>> attention(const AttentionSiteInfo<T>& site,
                                              Context& context) const override {
    if constexpr (requires { Method::attention(config_, site, context); })
      return Method::attention(config_, site, context);
    else
      return nullptr;
  }
  std::shared_ptr<PromptPart<T>> prompt(const PromptSiteInfo<T>& site,
                                        Context& context) const override {
    if constexpr (requires { Method::prompt(config_, site, context); })
      return Method::prompt(config_, site, context);
    else
      return nullptr;
  }
  void finish(AdapterSet<T>& set, BasicSiteTable<T>& table, Context& context) const override {
    if constexpr (requires { Method::procedure(config_, set.parts()); })
      set.set_procedure(Method::procedure(config_, set.parts()));
    if constexpr (requires { Method::finish(config_, set, table, context); })
      Method::finish(config_, set, table, context);
  }
  std::optional<bool> trains_norms() const override {
    if constexpr (requires { Method::trains_norms(config_); })
      return Method::trains_norms(config_);
    else
      return std::nullopt;
  }
  ConfigValue layer_replication() const override {
    if constexpr (requires { config_.layer_replication; })
      return config_.layer_replication;
    else
      return nullptr;
  }

 private:
  ConfiguredMethodOf(Config config, const ConfigValue::Map& map, const ModelInfo& model)
      : ConfiguredMethod<T>(site_rules<Method>(config), map, model), config_(std::move(config)) {}
  Config at(const std::string& path) const {
    const auto own = this->filter().config_of(path);
    return own ? config_from<Config>(*own) : config_;
  }
  Config config_;
};

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
    MethodEntry<T> entry;
    entry.info = Method::info();
    entry.defaults = detail::default_config<Config>(entry.info.peft_type);
    entry.written = detail::default_config<Config>(entry.info.peft_type, {}, false);
    entry.configure = [](const ConfigValue::Map& map,
                         const ModelInfo& model) -> std::unique_ptr<ConfiguredMethod<T>> {
      return std::make_unique<detail::ConfiguredMethodOf<Method>>(map, model);
    };
    entry.places = detail::places_of<Method>();
    entry.example = entry.defaults;
    if constexpr (requires { Method::example(); })
      entry.example = detail::default_config(entry.info.peft_type, Method::example());
    if constexpr (requires(const Config& config) { Method::experts(config); })
      entry.experts = [](const ConfigValue::Map& map) {
        return Method::experts(detail::config_from<Config>(map));
      };
    entries_.push_back(std::move(entry));
  }
  std::vector<MethodEntry<T>> entries_;
};

}  // namespace graft::inline v0_1
