#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/method.hpp"
#include "graft/compose/adapter_set.hpp"
#include "graft/compose/site_filter.hpp"

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

/// A method with one configuration for one model, without the type of either, so that what puts
/// methods on models is compiled once. The functions stand for those of the descriptor (see
/// LinearMethod); those that it does not have, by `places`, are not called.
template <std::floating_point T>
class ConfiguredMethod {
 public:
  ConfiguredMethod(SiteRules rules, const ConfigValue::Map& map, const ModelInfo& model)
      : filter_(std::move(rules), map, model) {}
  ConfiguredMethod(const ConfiguredMethod&) = delete;
  ConfiguredMethod& operator=(const ConfiguredMethod&) = delete;
  virtual ~ConfiguredMethod() = default;

  const SiteFilter& filter() const { return filter_; }
  virtual MethodPlaces places() const = 0;
  virtual std::shared_ptr<LinearPart<T>> linear(const LinearSiteInfo<T>&,
                                                InitContext<T>&) const = 0;
  virtual std::shared_ptr<EmbeddingPart<T>> embedding(const EmbeddingSiteInfo<T>&,
                                                      InitContext<T>&) const = 0;
  virtual std::shared_ptr<NormPart<T>> norm(const NormSiteInfo<T>&, InitContext<T>&) const = 0;
  virtual std::shared_ptr<HiddenPart<T>> hidden(const HiddenSiteInfo<T>&,
                                                InitContext<T>&) const = 0;
  virtual std::shared_ptr<AttentionPart<T>> attention(const AttentionSiteInfo<T>&,
                                                      InitContext<T>&) const = 0;
  virtual std::shared_ptr<PromptPart<T>> prompt(const PromptSiteInfo<T>&,
                                                InitContext<T>&) const = 0;
  /// Of a set that has its parts: its procedure, and what the method does with the whole model.
  virtual void finish(AdapterSet<T>& set, BasicSiteTable<T>& table,
                      InitContext<T>& context) const = 0;
  /// Whether all norms of the model are trained or none; empty: chosen like other sites.
  virtual std::optional<bool> trains_norms() const = 0;
  /// Ranges of layers that the model is rebuilt from first; null: as it is.
  virtual ConfigValue layer_replication() const = 0;

 private:
  SiteFilter filter_;
};

namespace detail {

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

}  // namespace detail

/// Makes the parts of `set` and attaches them to the sites of `table`, not yet active.
/// @throws ValueError if nothing of the model is meant.
template <std::floating_point T>
void build_parts(const ConfiguredMethod<T>& method, AdapterSet<T>& set, BasicSiteTable<T>& table,
                 InitContext<T>& context) {
  const SiteFilter& filter = method.filter();
  const MethodPlaces places = method.places();
  const auto replication = method.layer_replication();
  if (const auto* ranges = replication.template get_if<ConfigValue::List>()) {
    if (!table.replicate_layers)
      throw ValueError(concat(set.info().peft_type,
                              ": layer_replication, but the model cannot repeat its layers"));
    std::vector<std::vector<Index>> pairs;
    detail::read_config("layer_replication", *ranges, pairs);
    std::vector<std::pair<Index, Index>> list;
    for (const auto& p : pairs) {
      if (p.size() != 2) throw ValueError("layer_replication: expected pairs [start, end)");
      list.emplace_back(p[0], p[1]);
    }
    table.replicate_layers(list);
  }
  std::vector<std::string> paths;
  bool found = false;
  const auto add_as = [&](const std::string& path, auto& site, auto part) {
    paths.push_back(path);
    if (!part) return;
    found = true;
    site.adapters().push_back({set.name(), part});
    set.add_part(path, std::move(part));
  };
  const auto add = [&](auto& site, auto part) { add_as(site.path(), site, std::move(part)); };
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
  if (places.embedding) {
    for (const auto* site : table.embedding)
      if (filter.wants(site->path(), false))
        all_embeddings.emplace_back(site->path(), Shape{site->table().rows(), site->table().dim()});
    for (auto* site : table.embedding) {
      if (!filter.wants(site->path(), false)) {
        paths.push_back(site->path());
        continue;
      }
      auto info = detail::embedding_site_info(*site);
      info.all_sites = all;
      info.all_embeddings = all_embeddings;
      add(*site, method.embedding(info, context));
    }
  }
  if (places.linear) {
    // Parameters of experts, by module: the names of those that are meant.
    std::map<std::string, std::set<std::string>> parameters;
    for (auto* site : table.linear)
      if (!site->expert.parameter.empty() && !meant(site).empty())
        parameters[site->path()].insert(site->expert.parameter);
    if (!filter.parameters().empty() && parameters.empty())
      throw ValueError(concat(set.info().peft_type, ": target parameter ", filter.parameters()[0],
                              " matches none of the model"));
    for (auto* site : table.linear) {
      const auto path = meant(site);
      if (path.empty()) {
        paths.push_back(site->path());
        continue;
      }
      auto info = detail::linear_site_info(*site, table);
      info.path = path;
      info.all_sites = all;
      info.all_embeddings = all_embeddings;
      if (!site->expert.parameter.empty()) {
        const auto& names = parameters[site->path()];
        info.nesting = std::distance(names.upper_bound(site->expert.parameter), names.end());
      }
      add_as(path, *site, method.linear(info, context));
    }
  }
  const auto every_norm = method.trains_norms();
  if (places.norm) {
    for (auto* site : table.norm) {
      if (every_norm ? !*every_norm : !filter.wants(site->path(), false)) {
        paths.push_back(site->path());
        continue;
      }
      const NormSiteInfo<T> info{site->path(), site->norm(),
                                 site->norm().weight ? site->norm().weight.size() : 0};
      const bool before = found;
      add(*site, method.norm(info, context));
      if (every_norm) found = before;
    }
  }
  if (places.hidden) {
    for (auto* site : table.hidden) {
      if (!filter.wants(site->path(), false)) {
        paths.push_back(site->path());
        continue;
      }
      const HiddenSiteInfo<T> info{site->path(), site->width(), layer_of(site->path()),
                                   table.info,   site->role(),  site->output_name(),
                                   site->norm()};
      add(*site, method.hidden(info, context));
    }
  }
  if (places.attention) {
    std::vector<std::string> all_attentions;
    for (const auto* site : table.attention)
      if (filter.wants(site->path(), false)) all_attentions.push_back(site->path());
    for (auto* site : table.attention) {
      if (!filter.wants(site->path(), false)) {
        paths.push_back(site->path());
        continue;
      }
      const AttentionSiteInfo<T> info{site->path(),   site->layer, site->heads, site->kv_heads,
                                      site->head_dim, site->role,  table.info,  all_attentions};
      add(*site, method.attention(info, context));
    }
  }
  if (places.prompt) {
    if (table.prompt == nullptr)
      throw ValueError(concat(set.info().peft_type, ": the model has no place for virtual tokens"));
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
    add(*table.prompt, method.prompt(info, context));
  }
  if (context.parts_made) context.parts_made();
  method.finish(set, table, context);
  if (!found && (every_norm || set.parts().empty())) filter.fail(paths);
}

#ifdef GRAFT_METHODS_COMPILED
extern template void build_parts(const ConfiguredMethod<float>&, AdapterSet<float>&,
                                 BasicSiteTable<float>&, InitContext<float>&);
extern template void build_parts(const ConfiguredMethod<double>&, AdapterSet<double>&,
                                 BasicSiteTable<double>&, InitContext<double>&);
#endif

}  // namespace graft::inline v0_1
