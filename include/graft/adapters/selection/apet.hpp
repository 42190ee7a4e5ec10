#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <unordered_set>
#include <vector>

#include "graft/adapters/selection/sparse_delta.hpp"

namespace graft::inline v0_1 {

/// Configuration of APET.
struct APETConfig {
  std::string form = "sparse";  ///< sparse: positions of weights; tensors: see `apet_selection`
  Index budget = 1000;          ///< N, trained numbers of the whole model
  std::uint64_t seed = 0;       ///< of the positions
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "APET";

  template <class Visitor>
  void fields(Visitor& v) {
    v("form", form);
    v("budget", budget);
    v("seed", seed);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for a budget below one, and for a form that is no adapter of its own.
  void validate() const {
    if (budget < 1) throw ValueError(concat("APET: budget ", budget, ", expected at least 1"));
    if (form == "tensors")
      throw ValueError(
          "APET: form 'tensors' trains tensors of other methods, which apet_selection chooses; "
          "expected sparse");
    if (form != "sparse") throw ValueError(concat("APET: form '", form, "', expected sparse"));
  }
};

/// Which whole tensors APET trains: the candidates are walked in `order`, and each is taken that
/// still fits what is left of the budget.
struct APETSelection {
  std::vector<bool> chosen;  ///< by candidate
  Index used = 0;            ///< numbers in the chosen ones
};

/// `sizes`: numbers of each candidate; `order`: a permutation of them, at random in APET.
/// @throws ValueError for an entry of the order that is no candidate, or is one again.
inline APETSelection apet_selection(std::span<const Index> sizes, std::span<const Index> order,
                                    Index budget) {
  APETSelection selection{std::vector<bool>(sizes.size(), false), 0};
  std::vector<bool> seen(sizes.size(), false);
  for (const Index candidate : order) {
    const auto at = static_cast<std::size_t>(candidate);
    if (candidate < 0 || at >= sizes.size() || seen[at])
      throw ValueError(concat("APET: candidate ", candidate, " in the order of ", sizes.size()));
    seen[at] = true;
    if (sizes[at] > budget - selection.used) continue;
    selection.chosen[at] = true;
    selection.used += sizes[at];
  }
  return selection;
}

namespace detail {

/// `count` different numbers below `limit`, each set of them with equal probability (Floyd's
/// algorithm), in rising order.
inline selection::Places distinct_numbers(Index limit, Index count, TorchGenerator& generator) {
  std::unordered_set<std::int64_t> taken;
  for (Index last = limit - count; last < limit; ++last) {
    const auto number = generator.randint(last + 1);
    if (!taken.insert(number).second) taken.insert(last);
  }
  selection::Places places(taken.begin(), taken.end());
  std::sort(places.begin(), places.end());
  return places;
}

}  // namespace detail

/// APET, sparse form: y = base(x) + x Sᵀ with S zero but at random places, N of them over all
/// adapted weights together: which numbers are trained matters little, their count does.
///
/// Trained: N = budget, one offset a place, zero at the start, so the identity; merges exactly. The
/// places are N different ones of all, drawn from `seed`, uniformly. The other form, whole tensors
/// of other methods up to a budget, is `apet_selection`. Source: Su et al. 2023 (arXiv:2306.02320),
/// section 3.2; the distribution of the places is this library's choice. Tensors: apet_values [k],
/// apet_indices [k] int64 (row · in + column, rising), k the places of the layer.
template <std::floating_point T>
class BasicAPET : public BasicSparseDelta<T> {
 public:
  using Config = APETConfig;

  static MethodInfo info() {
    return {.peft_type = "APET",
            .name = "APET",
            .family = "selection",
            .paper = "arXiv:2306.02320",
            .sites = "linear, conv",
            .parameters = "once budget",
            .in_peft = false};
  }

  /// @throws ValueError for a budget above the number of weights.
  BasicAPET(const APETConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : BasicSparseDelta<T>(site, "apet", IndexTensor::Type::i64) {
    config.validate();
    if (context.loading) return;
    auto sites = site.all_sites;
    const Index own = site.out_features * site.in_features;
    if (sites.empty()) sites = {{site.path, Shape{site.out_features, site.in_features}}};
    Index first = 0, total = 0;
    for (const auto& [path, shape] : sites) {
      if (path == site.path) first = total;
      total += shape.elements();
    }
    if (config.budget > total)
      throw ValueError(concat("APET: budget ", config.budget, " of ", total, " weights"));
    const auto all = context.shared.object("apet_places", [&] {
      TorchGenerator generator(config.seed);
      return detail::distinct_numbers(total, config.budget, generator);
    });
    const auto begin = std::lower_bound(all->begin(), all->end(), first),
               end = std::lower_bound(begin, all->end(), first + own);
    selection::Places places(begin, end);
    for (auto& place : places) place -= first;
    this->select(std::move(places));
  }
  /// For a layer of one's own; places are drawn from the configuration's seed.
  template <Linear L>
  BasicAPET(const APETConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicAPET(config, site_info(base), StandaloneInit<T>(seed).context()) {}
};

using APET = BasicAPET<float>;

}  // namespace graft::inline v0_1
