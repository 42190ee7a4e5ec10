#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "graft/compose/adapter_model.hpp"
#include "graft/compose/compressed_update.hpp"
#include "graft/compose/task_vectors.hpp"
#include "graft/compose/update_factors.hpp"

namespace graft::inline v0_1 {

/// How several adapters become one LoRA.
struct CombineOptions {
  /// exact: ΔW = Σ wᵢ ΔWᵢ for any adapters that merge, LoRA or not, rsLoRA, DoRA, biases and
  /// modules_to_save included; LoRA factors are put side by side, updates of other methods
  /// factored.
  /// The others are for LoRA. Those of Hugging Face PEFT's add_weighted_adapter: cat, linear, ties,
  /// dare_linear, dare_ties, magnitude_prune (on A and B separately, which is not Σ wᵢ ΔWᵢ), and
  /// svd, ties_svd, dare_linear_svd, dare_ties_svd, magnitude_prune_svd (on the products, then cut
  /// off). In the same two forms breadcrumbs (Model Breadcrumbs, the weights are its α, 0.3 in the
  /// paper) and compeft (ComPEFT, the weights are its α): of compeft all A of an adapter are one
  /// vector and all B another, of compeft_svd all its products. ComPEFT's τ of A would be the
  /// difference from A as it was drawn, which files of adapters do not have; the products start
  /// from zero.
  std::string combination_type = "exact";
  /// Share of entries that ties, dare_* and magnitude_prune keep; -1 for breadcrumbs is 0.1, for
  /// compeft 0.2.
  double density = -1;
  double remove = Breadcrumbs{}.remove;  ///< breadcrumbs: share of the largest entries that go
  bool by_row = Breadcrumbs{}.by_row;    ///< breadcrumbs: shares of each row, not of a whole tensor
  std::string majority_sign_method = "total";
  Index svd_rank = 0;     ///< *_svd: 0 is the largest rank of the adapters; exact: cut off at this
  double energy = 0;      ///< exact: the rank that keeps this share of Σσ² at each layer
  double svd_clamp = -1;  ///< *_svd: quantile that entries of the factors are cut at; below 0: none
  std::uint64_t seed = 0;  ///< of dare_*
};

namespace detail {

/// Tensors of one adapter by their keys, those with two names by the first.
template <std::floating_point T>
std::map<std::string, BasicParameter<T>> parameters_by_key(const AdapterSet<T>& set) {
  std::map<std::string, BasicParameter<T>> map;
  for (const auto& [key, tensor] : set.tensors())
    if (tensor.parameter && !tensor.alias) map[key] = tensor.parameter;
  return map;
}

inline bool config_flag(const ConfigValue::Map& config, const std::string& field) {
  const auto it = config.find(field);
  if (it == config.end() || it->second.is_null()) return false;
  if (const auto* flag = it->second.get_if<bool>()) return *flag;
  if (const auto* list = it->second.get_if<ConfigValue::List>()) return !list->empty();
  if (const auto* map = it->second.get_if<ConfigValue::Map>()) return !map->empty();
  return true;
}
inline double config_number(const ConfigValue::Map& config, const std::string& field) {
  const auto it = config.find(field);
  if (it == config.end())
    throw ValueError(concat("adapter config: field '", field, "' is missing"));
  return it->second.number();
}
inline std::string config_text(const ConfigValue::Map& config, const std::string& field) {
  const auto it = config.find(field);
  const auto* text = it == config.end() ? nullptr : it->second.get_if<std::string>();
  return text == nullptr ? std::string() : *text;
}
inline std::vector<std::string> config_list(const ConfigValue::Map& config,
                                            const std::string& field) {
  std::vector<std::string> list;
  const auto it = config.find(field);
  if (it != config.end() && it->second.get_if<ConfigValue::List>() != nullptr)
    read_config(field, it->second, list);
  return list;
}

/// True if an entry is not zero.
template <std::floating_point T>
bool changes(const BasicTensor<T>& delta) {
  return std::any_of(delta.begin(), delta.end(), [](T v) { return v != 0; });
}

/// True if the adapter trains biases of the model.
inline bool trains_biases(const ConfigValue::Map& config) {
  const auto mode = config_text(config, "bias");
  return !mode.empty() && mode != "none";
}

/// True if ΔW of the adapter is alpha / rank · B A alone (with a bias, where `lora_bias` says so).
inline bool is_plain_lora(const MethodInfo& info, const ConfigValue::Map& config) {
  if (info.peft_type != "LORA") return false;
  for (const char* field :
       {"use_dora", "use_qalora", "alora_invocation_tokens", "use_bdlora", "kasa_config",
        "arrow_config", "monteclora_config", "target_parameters"})
    if (config_flag(config, field)) return false;
  return true;
}

/// The factor in front of B A at one site of a LoRA.
inline double lora_scaling(const ConfigValue::Map& config, const std::string& path, Index rank) {
  double alpha = config_number(config, "lora_alpha");
  if (const auto it = config.find("alpha_pattern"); it != config.end())
    if (const auto* patterns = it->second.get_if<ConfigValue::Map>())
      if (const auto value = pattern_value(*patterns, path)) alpha = value->number();
  const double r = static_cast<double>(rank);
  return config_flag(config, "use_rslora") ? alpha / std::sqrt(r) : alpha / r;
}

/// The pattern of rank_pattern or alpha_pattern that means this path and no other one.
inline std::string exact_pattern(const std::string& path, const std::vector<std::string>& paths) {
  const bool suffix = std::any_of(paths.begin(), paths.end(), [&](const std::string& other) {
    return other != path && has_suffix(other, path);
  });
  return suffix ? "^" + path : path;
}

/// What a LoRA holds at one site.
template <std::floating_point T>
struct SiteFactors {
  UpdateFactors<T> factors;
  BasicTensor<T> bias;  ///< what the layer adds to its output beside the product, or empty
  double scaling = 1;
};

constexpr const char* kKeyPrefix = "base_model.model.";

/// Factors of a plain LoRA by path; of an embedding too (A [rank, rows], B [dim, rank]).
template <std::floating_point T>
std::map<std::string, SiteFactors<T>> lora_factors(const AdapterSet<T>& set) {
  std::map<std::string, SiteFactors<T>> result;
  static constexpr std::pair<std::string_view, int> kEndings[] = {{".lora_A.weight", 0},
                                                                  {".lora_B.weight", 1},
                                                                  {".lora_embedding_A", 0},
                                                                  {".lora_embedding_B", 1},
                                                                  {".lora_B.bias", 2}};
  const std::string prefix = kKeyPrefix;
  for (const auto& [key, parameter] : parameters_by_key(set))
    for (const auto& [ending, which] : kEndings) {
      if (!key.ends_with(ending)) continue;
      auto& site = result[key.substr(prefix.size(), key.size() - prefix.size() - ending.size())];
      (which == 0 ? site.factors.a : which == 1 ? site.factors.b : site.bias) = parameter.value();
    }
  for (auto& [path, site] : result) {
    if (!site.factors.a || !site.factors.b)
      throw ValueError(concat("combine: ", path, " of '", set.name(), "' has one factor only"));
    if (site.factors.b.cols() != site.factors.a.rows())
      throw ValueError(concat("combine: ", path, " is a grouped convolution"));
    site.scaling = lora_scaling(set.given_config(), path, site.factors.rank());
  }
  return result;
}

/// Writes factors into a LoRA that was made with the same ranks. What it has no source for becomes
/// zero.
template <std::floating_point T>
void write_factors(AdapterSet<T>& set, const std::map<std::string, SiteFactors<T>>& sites) {
  const std::string prefix = kKeyPrefix;
  const auto write = [&](BasicParameter<T> parameter, const BasicTensor<T>& value, bool down) {
    auto target = BasicTensor<T>::zeros(parameter.shape());
    if (value) {
      if (value.rank() == 1) {
        target = value.clone();
      } else {  // fewer ranks than there is room for: the rest stays zero
        const Index rows = value.rows(), cols = value.cols();
        if (rows > target.rows() || cols > target.cols() ||
            (down ? cols != target.cols() : rows != target.rows()))
          throw ShapeError(concat("combine: factor ", value.shape().text(), " for a parameter ",
                                  target.shape().text()));
        for (Index i = 0; i < rows; ++i)
          for (Index j = 0; j < cols; ++j) target(i, j) = value(i, j);
      }
    }
    parameter.assign(std::move(target));
  };
  for (const auto& [key, parameter] : parameters_by_key(set)) {
    const auto find = [&](std::string_view ending) -> const SiteFactors<T>* {
      const auto it =
          sites.find(key.substr(prefix.size(), key.size() - prefix.size() - ending.size()));
      return it == sites.end() ? nullptr : &it->second;
    };
    for (const std::string_view ending : {".lora_A.weight", ".lora_embedding_A", ".lora_B.weight",
                                          ".lora_embedding_B", ".lora_B.bias"}) {
      if (!key.ends_with(ending)) continue;
      const auto* site = find(ending);
      const bool down = ending.find("_A") != ending.npos, bias = ending.ends_with("bias");
      const BasicTensor<T> none;
      write(parameter,
            site == nullptr ? none
            : bias          ? site->bias
            : down          ? site->factors.a
                            : site->factors.b,
            down);
    }
  }
}

/// Fields of a LoRA configuration that hold for one way of making or training it only.
inline void make_plain(ConfigValue::Map& config) {
  config["peft_type"] = "LORA";
  config["use_rslora"] = false;
  config["use_dora"] = false;
  config["use_qalora"] = false;
  config["init_lora_weights"] = true;
  config["loftq_config"] = ConfigValue::Map{};
  for (const char* field : {"eva_config", "corda_config", "lora_ga_config", "kasa_config",
                            "velora_config", "use_bdlora", "arrow_config", "monteclora_config",
                            "alora_invocation_tokens", "target_parameters"})
    config[field] = nullptr;
  config["rank_pattern"] = ConfigValue::Map{};
  config["alpha_pattern"] = ConfigValue::Map{};
}

/// Rank and alpha of the configuration: the commonest rank, patterns for the other sites. alpha is
/// the rank, so that the scaling is one.
inline void set_ranks(ConfigValue::Map& config, const std::map<std::string, Index>& ranks) {
  std::map<Index, Index> count;
  std::vector<std::string> paths;
  for (const auto& [path, rank] : ranks) {
    ++count[rank];
    paths.push_back(path);
  }
  const Index common = std::max_element(count.begin(), count.end(), [](auto& x, auto& y) {
                         return x.second < y.second;
                       })->first;
  ConfigValue::Map patterns;
  for (const auto& [path, rank] : ranks)
    if (rank != common) patterns[exact_pattern(path, paths)] = rank;
  config["r"] = common;
  config["lora_alpha"] = common;
  config["rank_pattern"] = patterns;
  config["alpha_pattern"] = patterns;
}

template <std::floating_point T>
ConfigValue::List paths_of(const std::map<std::string, SiteFactors<T>>& sites) {
  ConfigValue::List list;
  for (const auto& [path, site] : sites) list.emplace_back(path);
  return list;
}

/// Makes an adapter from a configuration of a result. Layers that were repeated for its sources are
/// not repeated again.
template <std::floating_point T>
AdapterSet<T>& add_result(BasicAdapterModel<T>& model, const std::string& name,
                          ConfigValue::Map config, TorchGenerator& generator) {
  const auto active = model.active();
  const auto replication = config["layer_replication"];
  config["layer_replication"] = nullptr;
  auto& set = model.add(name, config, generator);
  set.mutable_config()["layer_replication"] = replication;
  model.activate(active);
  return set;
}

/// The key of a trained bias, the same whether the adapter changes its layer's weight or not.
inline std::string bias_key(std::string key) {
  static constexpr std::string_view kAdapted = ".base_layer.bias";
  if (key.ends_with(kAdapted)) key.replace(key.size() - kAdapted.size(), key.npos, ".bias");
  return key;
}

/// Adds Σ wᵢ (value of adapter i − value at the start) to every tensor that is no factor: biases,
/// modules trained whole, rows of tokens. Of an adapter that is no plain LoRA the modules alone.
template <std::floating_point T>
void add_other_tensors(AdapterSet<T>& result, const std::vector<const AdapterSet<T>*>& sources,
                       const std::vector<double>& weights) {
  auto target = parameters_by_key(result);
  std::vector<std::map<std::string, BasicParameter<T>>> given;
  for (const auto* set : sources) {
    given.emplace_back();
    for (auto& [key, parameter] : parameters_by_key(*set)) given.back()[bias_key(key)] = parameter;
  }
  for (auto& [key, parameter] : target) {
    if (key.find(".lora_") != key.npos) continue;
    const auto start = parameter.value();
    auto value = start.clone();
    for (std::size_t s = 0; s < sources.size(); ++s) {
      const auto it = given[s].find(bias_key(key));
      if (it == given[s].end()) continue;
      const auto& config = sources[s]->given_config();
      if (!is_plain_lora(sources[s]->info(), config) &&
          !BasicAdapterModel<T>::inside(key, config_list(config, "modules_to_save")))
        continue;
      const auto own = it->second.value();
      if (own.shape() != value.shape())
        throw ValueError(concat("combine: ", key, " has several shapes"));
      for (Index i = 0; i < value.size(); ++i)
        value[i] += static_cast<T>(weights[s] *
                                   (static_cast<double>(own[i]) - static_cast<double>(start[i])));
    }
    parameter.assign(std::move(value));
  }
}

template <std::floating_point T>
AdapterSet<T>& combine_exactly(BasicAdapterModel<T>& model,
                               const std::vector<std::string>& adapters,
                               const std::vector<double>& weights, const std::string& name,
                               const CombineOptions& options) {
  const RankChoice choice{options.svd_rank, options.energy};
  choice.validate();
  ConfigValue::Map config = model.registry().at("LORA").defaults;
  std::vector<const AdapterSet<T>*> sets;
  for (const auto& adapter : adapters) sets.push_back(&model.at(adapter));
  // Terms of each site; updates of other methods are whole matrices.
  struct Terms {
    std::vector<UpdateFactors<T>> factors;
    std::vector<double> weights;
    BasicTensor<T> whole, bias;
    double scale = 0;  ///< size of the frozen weight, for what is rounding
  };
  std::map<std::string, Terms> terms;
  const auto accumulate = [](BasicTensor<T>& sum, const BasicTensor<T>& value, double weight) {
    if (!sum) sum = BasicTensor<T>::zeros(value.shape());
    for (Index i = 0; i < value.size(); ++i)
      sum[i] += static_cast<T>(weight * static_cast<double>(value[i]));
  };
  std::set<std::string> whole_modules;
  std::string bias_mode = "none";  // of plain LoRAs; what others do to biases is among their terms
  ConfigValue tokens;
  bool needs_bias = false;
  const auto refuse = [&](std::size_t s, const std::string& why) {
    throw ValueError(
        concat("combine: '", adapters[s], "' of ", sets[s]->info().peft_type, " ", why));
  };
  for (const auto* set : sets)
    for (const auto& m : config_list(set->given_config(), "modules_to_save"))
      whole_modules.insert(m);
  const std::vector<std::string> whole(whole_modules.begin(), whole_modules.end());
  // What one adapter trains whole, no other one changes in another way.
  const auto terms_at = [&](std::size_t s, const std::string& path) -> Terms& {
    if (BasicAdapterModel<T>::inside(path, whole))
      refuse(s, concat("changes ", path,
                       ", which another adapter trains whole; merge them into the model instead"));
    return terms[path];
  };
  for (std::size_t s = 0; s < sets.size(); ++s) {
    const auto& given = sets[s]->given_config();
    const auto it = given.find("trainable_token_indices");
    const bool has_tokens = it != given.end() && !it->second.is_null();
    if (s == 0 && sets[s]->info().peft_type == "LORA") config = given;
    if (s == 0)
      for (const char* field : {"task_type", "auto_mapping"})
        if (const auto value = given.find(field); value != given.end())
          config[field] = value->second;
    if (is_plain_lora(sets[s]->info(), given)) {
      if (trains_biases(given) && bias_mode != "all")
        bias_mode = config_text(given, "bias") == "all" ? "all" : "lora_only";
      if (has_tokens) {
        if (!tokens.is_null() && !(tokens == it->second))
          throw ValueError("combine: the adapters have different trainable_token_indices");
        tokens = it->second;
      }
      for (const auto& [path, site] : lora_factors(*sets[s])) {
        auto& t = terms_at(s, path);
        t.factors.push_back(site.factors);
        t.weights.push_back(weights[s] * site.scaling);
        if (site.bias) {
          accumulate(t.bias, site.bias, weights[s] * site.scaling);
          needs_bias = true;
        }
      }
      continue;
    }
    if (has_tokens)
      refuse(s, "trains rows of tokens beside its updates; merge it into the model instead");
    const auto own_whole = config_list(given, "modules_to_save");
    const auto is_own = [&](const std::string& path) {
      return BasicAdapterModel<T>::inside(path, own_whole);
    };
    typename BasicAdapterModel<T>::Deltas deltas;
    try {
      deltas = model.deltas(adapters[s]);
    } catch (const ValueError& error) {
      refuse(s, concat("cannot become a LoRA: ", error.what()));
    }
    for (const auto& path : deltas.norms)
      if (!is_own(path))
        refuse(s, concat("changes the norm ", path,
                         ", which no LoRA can; merge it into the model instead"));
    // Layers that stay as they are need no factors.
    const auto counts = [&](const std::string& path, const BasicTensor<T>& delta) {
      if (is_own(path)) return false;
      const auto bias = deltas.bias.find(path);
      return changes(delta) || (bias != deltas.bias.end() && changes(bias->second));
    };
    for (const auto& [path, delta] : deltas.weight)
      if (counts(path, delta)) accumulate(terms_at(s, path).whole, delta, weights[s]);
    for (const auto& [path, delta] : deltas.embedding)
      if (counts(path, delta)) accumulate(terms_at(s, path).whole, transposed(delta), weights[s]);
    for (const auto& [path, bias] : deltas.bias) {
      if (is_own(path) || !changes(bias)) continue;
      accumulate(terms_at(s, path).bias, bias, weights[s]);
      needs_bias = true;
    }
  }
  for (auto* site : model.sites().linear)
    if (const auto it = terms.find(site->path()); it != terms.end() && it->second.whole)
      for (const T v : site->base().dense_weight())
        it->second.scale += static_cast<double>(v) * static_cast<double>(v);
  std::map<std::string, SiteFactors<T>> sites;
  std::map<std::string, Index> ranks;
  for (auto& [path, t] : terms) {
    auto& site = sites[path];
    site.bias = t.bias;
    if (t.whole && t.factors.empty() && !changes(t.whole)) {
      const Index out = t.whole.shape()[0];
      site.factors = {BasicTensor<T>::zeros({1, t.whole.size() / out}),
                      BasicTensor<T>::zeros({out, 1})};
    } else if (t.whole) {
      if (!t.factors.empty()) {
        const auto sum = product_of(concatenated_factors(t.factors, t.weights));
        accumulate(t.whole, sum, 1);
      }
      const double epsilon = static_cast<double>(std::numeric_limits<T>::epsilon());
      site.factors = truncated_factors(t.whole, choice, 2 * epsilon * std::sqrt(t.scale));
    } else {
      site.factors = concatenated_factors(t.factors, t.weights);
      if (choice.rank > 0 || choice.energy > 0)
        site.factors = truncated_factors(site.factors, choice);
    }
    ranks[path] = site.factors.rank();
  }
  if (sites.empty()) throw ValueError("combine: the adapters change no layer");
  make_plain(config);
  set_ranks(config, ranks);
  config["target_modules"] = paths_of(sites);
  for (const char* field : {"exclude_modules", "layers_to_transform", "layers_pattern"})
    config[field] = nullptr;
  config["lora_bias"] = needs_bias;
  config["bias"] = bias_mode;
  config["trainable_token_indices"] = tokens;
  config["modules_to_save"] = nullptr;
  if (!whole_modules.empty()) {
    ConfigValue::List list;
    for (const auto& m : whole_modules) list.emplace_back(m);
    config["modules_to_save"] = list;
  }
  TorchGenerator generator(options.seed);
  auto& result = add_result(model, name, config, generator);
  write_factors(result, sites);
  add_other_tensors(result, sets, weights);
  return result;
}

/// Factors cut at a quantile of their joint entries, as torch.quantile interpolates it, and at its
/// negative.
template <std::floating_point T>
void clamp_factors(UpdateFactors<T>& f, double quantile) {
  if (quantile > 1) throw ValueError(concat("svd_clamp ", quantile, ", expected [0, 1]"));
  std::vector<T> all(f.b.begin(), f.b.end());
  all.insert(all.end(), f.a.begin(), f.a.end());
  std::sort(all.begin(), all.end());
  const double place = quantile * static_cast<double>(all.size() - 1);
  const auto low = static_cast<std::size_t>(place);
  const double part = place - static_cast<double>(low);
  const double high = static_cast<double>(all[low]) +
                      (part > 0 ? part * static_cast<double>(all[low + 1] - all[low]) : 0.0);
  const T limit = static_cast<T>(high);
  for (auto* t : {&f.a, &f.b})
    for (T& v : *t) v = std::min(std::max(v, -limit), limit);
}

/// Products of a LoRA by path.
template <std::floating_point T>
std::map<std::string, BasicTensor<T>> products_of(
    const std::map<std::string, SiteFactors<T>>& sites) {
  std::map<std::string, BasicTensor<T>> products;
  for (const auto& [path, site] : sites) products[path] = product_of(site.factors, site.scaling);
  return products;
}

/// ComPEFT of all these tensors as one vector.
template <std::floating_point T>
void compress(std::vector<BasicTensor<T>*> tensors, double density) {
  std::vector<BasicTensor<T>> values;
  for (const auto* t : tensors) values.push_back(*t);
  values = compressed(values, density);
  for (std::size_t i = 0; i < tensors.size(); ++i) *tensors[i] = std::move(values[i]);
}

/// What a kind of combination keeps of each tensor.
inline CombineRule combine_rule(const std::string& type, const CombineOptions& options) {
  CombineRule rule{type, options.density, options.majority_sign_method, options.remove,
                   options.by_row};
  if (type == "svd")
    rule.kind = "linear";
  else if (type.ends_with("_svd"))
    rule.kind = type.substr(0, type.size() - 4);
  static const std::set<std::string> kKinds{"cat",         "linear",    "ties",
                                            "dare_linear", "dare_ties", "magnitude_prune",
                                            "breadcrumbs", "compeft"};
  if (!kKinds.contains(rule.kind) || type == "cat_svd" || type == "linear_svd")
    throw ValueError(
        concat("combination_type '", type,
               "', expected exact, cat, linear, svd, ties, dare_linear, dare_ties, "
               "magnitude_prune, breadcrumbs or compeft, the last six also with _svd"));
  if (rule.kind == "cat" || rule.kind == "linear") return rule;
  if (options.density < 0) {
    if (rule.kind != "breadcrumbs" && rule.kind != "compeft")
      throw ValueError(concat("combination_type ", type, " needs a density"));
    rule.density = rule.kind == "compeft" ? 0.2 : Breadcrumbs{}.keep;
  }
  if (rule.kind == "breadcrumbs" && !(options.remove >= 0 && options.remove < 1))
    throw ValueError(concat("combination_type ", type, ": remove ", options.remove,
                            ", expected at least 0 and less than 1"));
  return rule;
}

template <std::floating_point T>
AdapterSet<T>& combine_as_peft(BasicAdapterModel<T>& model,
                               const std::vector<std::string>& adapters,
                               const std::vector<double>& weights, const std::string& name,
                               const CombineOptions& options) {
  auto type = options.combination_type;
  // PEFT always combines one adapter linearly.
  if (adapters.size() == 1 && !type.starts_with("breadcrumbs") && !type.starts_with("compeft"))
    type = "linear";
  auto rule = combine_rule(type, options);
  const bool compresses = rule.kind == "compeft";
  if (compresses) rule.kind = "linear";
  const bool on_products = type.ends_with("svd");
  std::vector<std::map<std::string, SiteFactors<T>>> factors;
  std::vector<Index> ranks;
  bool patterns = false;
  std::set<std::string> names, whole_modules;
  std::string pattern;
  for (const auto& adapter : adapters) {
    const auto& set = model.at(adapter);
    const auto& config = set.given_config();
    if (!is_plain_lora(set.info(), config) || config_flag(config, "lora_bias"))
      throw ValueError(concat("combination_type ", options.combination_type, ": '", adapter,
                              "' is no plain LoRA; use exact, which combines any methods"));
    if (trains_biases(config))
      throw ValueError(concat("combination_type ", options.combination_type, ": '", adapter,
                              "' trains biases of the model; use exact, which combines them"));
    for (const auto& m : config_list(config, "modules_to_save"))
      if (!whole_modules.insert(m).second)
        throw ValueError(
            concat("combination_type ", type, ": several adapters train ", m, " whole; use exact"));
    factors.push_back(lora_factors(set));
    Index rank = static_cast<Index>(config_number(config, "r"));
    for (const auto& [path, site] : factors.back()) rank = std::max(rank, site.factors.rank());
    ranks.push_back(rank);
    const auto list = config_list(config, "target_modules");
    names.insert(list.begin(), list.end());
    if (const auto text = config_text(config, "target_modules"); !text.empty()) {
      patterns = true;
      pattern += (pattern.empty() ? "(" : "|(") + text + ")";
    }
  }
  if (patterns && !names.empty())
    throw ValueError(concat("combination_type ", type,
                            ": target_modules is a pattern in one adapter and a list in another; "
                            "use exact"));
  Index rank = *std::max_element(ranks.begin(), ranks.end());
  if (type == "cat")
    rank = std::accumulate(ranks.begin(), ranks.end(), Index{0});
  else if (on_products)
    rank = options.svd_rank > 0 ? options.svd_rank : rank;
  else if (std::any_of(ranks.begin(), ranks.end(), [&](Index r) { return r != rank; }))
    throw ValueError(concat("combination_type ", type,
                            ": the adapters have different ranks; use exact, cat or svd"));
  std::set<std::string> paths;
  for (const auto& f : factors)
    for (const auto& [path, site] : f) paths.insert(path);
  auto config = model.at(adapters[0]).given_config();
  make_plain(config);
  config["r"] = rank;
  config["lora_alpha"] = rank;
  if (patterns && pattern.find("all-linear") == pattern.npos) {
    config["target_modules"] = pattern;
  } else {
    ConfigValue::List list;
    if (names.empty() || names.contains("all-linear")) names = paths;
    for (const auto& n : names) list.emplace_back(n);
    config["target_modules"] = list;
  }
  std::vector<std::map<std::string, BasicTensor<T>>> products;
  if (compresses)
    for (auto& own : factors) {
      std::vector<BasicTensor<T>*> a, b, whole;
      for (auto& [path, site] : own) {
        a.push_back(&site.factors.a);
        b.push_back(&site.factors.b);
      }
      if (on_products) {
        products.push_back(products_of(own));
        for (auto& [path, product] : products.back()) whole.push_back(&product);
        compress(whole, rule.density);
      } else {
        compress(a, rule.density);
        compress(b, rule.density);
      }
    }
  TorchGenerator generator(options.seed);
  auto& result = add_result(model, name, config, generator);
  std::map<std::string, SiteFactors<T>> sites;
  // In the order of the modules, which random masks depend on.
  for (const auto& placed : result.parts()) {
    const auto& path = placed.path;
    if (sites.contains(path)) continue;
    std::vector<UpdateFactors<T>> own;
    std::vector<double> own_weights;
    for (std::size_t t = 0; t < factors.size(); ++t)
      if (const auto it = factors[t].find(path); it != factors[t].end()) {
        own.push_back(it->second.factors);
        own_weights.push_back(weights[t] * it->second.scaling);
      }
    if (own.empty()) continue;
    auto& site = sites[path];
    if (type == "cat") {
      // As PEFT, the weights go into A.
      std::vector<UpdateFactors<T>> weighted;
      for (std::size_t t = 0; t < own.size(); ++t) {
        weighted.push_back({own[t].a.clone(), own[t].b});
        for (T& v : weighted[t].a) v = static_cast<T>(own_weights[t] * static_cast<double>(v));
      }
      site.factors = concatenated_factors(weighted, std::vector<double>(own.size(), 1));
      continue;
    }
    if (on_products) {
      std::vector<BasicTensor<T>> deltas;
      std::vector<double> given;
      for (std::size_t t = 0, k = 0; t < factors.size(); ++t)
        if (const auto it = factors[t].find(path); it != factors[t].end()) {
          deltas.push_back(products.empty() ? product_of(own[k], it->second.scaling)
                                            : products[t].at(path));
          ++k;
          given.push_back(weights[t]);
        }
      site.factors =
          truncated_factors(combine_tasks(rule, deltas, given, generator), RankChoice{rank, 0});
      if (options.svd_clamp >= 0) clamp_factors(site.factors, options.svd_clamp);
      continue;
    }
    if (rule.kind == "breadcrumbs" && rule.by_row && share_of(own[0].rank(), rule.density) == 0)
      throw ValueError(concat("combination_type ", type, ": density ", rule.density,
                              " keeps none of the ", own[0].rank(),
                              " entries in a row of B; shares of whole tensors, breadcrumbs_svd or "
                              "a density of at least ",
                              1.0 / static_cast<double>(own[0].rank()), " keep some"));
    std::vector<BasicTensor<T>> a, b;
    std::vector<double> weights_a, weights_b;
    for (std::size_t t = 0; t < own.size(); ++t) {
      a.push_back(own[t].a);
      b.push_back(own[t].b);
      weights_b.push_back(std::sqrt(std::abs(own_weights[t])));
      weights_a.push_back(own_weights[t] < 0 ? -weights_b.back() : weights_b.back());
    }
    site.factors.a = combine_tasks(rule, a, weights_a, generator);
    site.factors.b = combine_tasks(rule, b, weights_b, generator);
  }
  write_factors(result, sites);
  return result;
}

}  // namespace detail

/// A new LoRA `name` from adapters of the model and their weights (which may be negative). The
/// active adapters stay as they are.
/// PEFT's kinds are as Hugging Face PEFT 0.21 computes them, except that rsLoRA is right there too
/// (PEFT's result is √r too large), that adapters with DoRA, lora_bias or trained biases are
/// refused where PEFT drops a part of them, and that a result of PiSSA, OLoRA, … starts from the
/// usual values where PEFT rewrites the frozen weights a second time.
/// @throws ValueError for adapters that do not fit the kind
template <std::floating_point T>
AdapterSet<T>& add_weighted_adapter(BasicAdapterModel<T>& model,
                                    const std::vector<std::string>& adapters,
                                    const std::vector<double>& weights, const std::string& name,
                                    const CombineOptions& options = {}) {
  if (adapters.empty()) throw ValueError("add_weighted_adapter: no adapters");
  if (adapters.size() != weights.size())
    throw ValueError(concat("add_weighted_adapter: ", weights.size(), " weights for ",
                            adapters.size(), " adapters"));
  if (model.contains(name)) throw ValueError(concat("adapter '", name, "' exists already"));
  const auto active = model.active();
  try {
    return options.combination_type == "exact"
               ? detail::combine_exactly(model, adapters, weights, name, options)
               : detail::combine_as_peft(model, adapters, weights, name, options);
  } catch (...) {
    if (model.contains(name)) model.remove(name);
    model.activate(active);
    throw;
  }
}

}  // namespace graft::inline v0_1
