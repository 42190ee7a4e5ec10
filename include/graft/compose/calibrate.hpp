#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "graft/adapters/low_rank/eva.hpp"
#include "graft/adapters/low_rank/lora_method.hpp"
#include "graft/compose/adapter_model.hpp"

/// Adapters whose first values come from data: the frozen model runs over some batches first.
namespace graft::inline v0_1 {

/// The batches that an init looks at.
template <std::floating_point T>
struct CalibrationData {
  Index batches = 0;
  /// Runs the model on batch i on the given tape and gives its loss. The loss is needed for the
  /// gradients of LoRA-GA only; others may give an empty value.
  std::function<BasicVar<T>(BasicTape<T>&, Index)> run;
  /// Which tokens of batch i count, 1 or 0, for inits that leave some out (EVA: those without a
  /// label). Not given: the real tokens of the batch.
  std::function<std::vector<unsigned char>(Index)> tokens = {};
  /// EVA goes over the batches until its directions stand still, at most so many times.
  Index rounds = 100;
};

namespace detail {

/// Sees what goes through a layer, without changing it.
template <std::floating_point T>
class CalibrationProbe final : public LinearAdapterInterface<T> {
 public:
  /// Told of every input, with one row a token.
  std::function<void(const BasicTensor<T>& x, const ForwardContext* context)> see;
  /// Gathers the gradient of the weight in `gradient`.
  bool wants_gradient = false;
  mutable BasicTensor<T> gradient;
  mutable Index passes = 0;  ///< backward ones

  BasicVar<T> apply(const BasicLinearView<T>& base, const BasicVar<T>& x) const override {
    auto& tape = x.tape();
    const Index in = base.in_features(), out = base.out_features(), rows = x.rows();
    const auto flat = x.value().reshape({rows, in});
    if (see) see(flat, tape.template context<ForwardContext>());
    const auto y = linear(base, x);
    if (!wants_gradient) return y;
    return tape.record(y.value(), true, [=, this, gy = y.grad_ref()](const BasicTensor<T>& dy) {
      if (!gradient) gradient = BasicTensor<T>::zeros({out, in});
      kernels::gemm(true, false, out, in, rows, T{1}, dy.data(), out, flat.data(), in, T{1},
                    gradient.data(), in);
      ++passes;
      gy.add(dy);
    });
  }
};

/// The sites that a LoRA configuration means, each with a probe that runs alone while this lives.
template <std::floating_point T>
class ProbedSites {
 public:
  struct Probed {
    BasicLinearSite<T>* site;
    LoRAConfig config;  ///< of this site
    std::shared_ptr<CalibrationProbe<T>> probe;
  };

  ProbedSites(BasicAdapterModel<T>& model, const ConfigValue::Map& map)
      : disabled_(model.disabled()) {
    const auto config = config_from<LoRAConfig>(map);
    const SiteFilter filter(site_rules<LoRAMethod<T>>(config), map, model.sites().info);
    for (auto* site : model.sites().linear) {
      const auto& path = site->target_path.empty() ? site->path() : site->target_path;
      if (!site->expert.parameter.empty() || !site->conv.kernel.empty() ||
          !filter.wants(path, true))
        continue;
      auto probe = std::make_shared<CalibrationProbe<T>>();
      site->adapters().push_back({kName, probe});
      site->activate({kName});
      const auto own = filter.config_of(site->path());
      list_.push_back({site, own ? config_from<LoRAConfig>(*own) : config, std::move(probe)});
    }
    if (list_.empty()) throw ValueError("calibration: the target modules match no linear layer");
  }
  ProbedSites(const ProbedSites&) = delete;
  ProbedSites& operator=(const ProbedSites&) = delete;
  ~ProbedSites() {
    for (auto& p : list_)
      std::erase_if(p.site->adapters(), [](const auto& named) { return named.name == kName; });
  }
  std::vector<Probed>& list() { return list_; }

 private:
  static constexpr const char* kName = "__calibration__";
  typename BasicAdapterModel<T>::Disabled disabled_;
  std::vector<Probed> list_;
};

template <std::floating_point T>
void run_without_gradients(const CalibrationData<T>& data, Index batch) {
  BasicTape<T> tape({.gradients = false, .training = false});
  data.run(tape, batch);
}

template <std::floating_point T>
Calibration<T> covariances(BasicAdapterModel<T>& model, const ConfigValue::Map& map,
                           const CalibrationData<T>& data) {
  ProbedSites<T> sites(model, map);
  std::map<std::string, CovarianceMean<T>> means;
  for (auto& p : sites.list()) {
    const auto options = nested_config<CordaConfig>("corda_config", p.config.corda_config);
    auto* mean =
        &means.try_emplace(p.site->path(), options.normalisation == "largest").first->second;
    p.probe->see = [mean](const BasicTensor<T>& x, const ForwardContext*) { mean->add(x); };
  }
  for (Index i = 0; i < data.batches; ++i) run_without_gradients(data, i);
  Calibration<T> all;
  for (const auto& [path, mean] : means)
    if (!mean.empty()) all[path].covariance = mean.value();
  return all;
}

template <std::floating_point T>
Calibration<T> weight_gradients(BasicAdapterModel<T>& model, const ConfigValue::Map& map,
                                const CalibrationData<T>& data) {
  ProbedSites<T> sites(model, map);
  for (auto& p : sites.list()) p.probe->wants_gradient = true;
  for (Index i = 0; i < data.batches; ++i) {
    BasicTape<T> tape({.seed = static_cast<std::uint64_t>(i)});
    const auto loss = data.run(tape, i);
    if (!loss) throw ValueError("calibration: LoRA-GA needs the loss of every batch");
    tape.backward(loss);
  }
  Calibration<T> all;
  for (auto& p : sites.list()) {
    if (p.probe->passes == 0) continue;
    auto gradient = p.probe->gradient;
    for (T& g : gradient) g /= static_cast<T>(p.probe->passes);
    all[p.site->path()].gradient = gradient;
  }
  return all;
}

/// The rows of x that count.
template <std::floating_point T>
BasicTensor<T> counted_rows(const BasicTensor<T>& x, const std::vector<unsigned char>& mask) {
  if (static_cast<Index>(mask.size()) != x.rows()) return x;
  std::vector<Index> rows;
  for (Index r = 0; r < x.rows(); ++r)
    if (mask[static_cast<std::size_t>(r)] != 0) rows.push_back(r);
  auto kept = BasicTensor<T>::empty({static_cast<Index>(rows.size()), x.cols()});
  for (std::size_t i = 0; i < rows.size(); ++i)
    std::copy_n(x.data() + rows[i] * x.cols(), x.cols(),
                kept.data() + static_cast<Index>(i) * x.cols());
  return kept;
}

/// EVA: directions of the inputs, and the rank that each site gets in `map`. Sites with the same
/// input share their directions.
template <std::floating_point T>
Calibration<T> eva_directions(BasicAdapterModel<T>& model, ConfigValue::Map& map,
                              const CalibrationData<T>& data) {
  const auto config = config_from<LoRAConfig>(map);
  const auto options = nested_config<EvaConfig>("eva_config", config.eva_config);
  ProbedSites<T> sites(model, map);
  auto& list = sites.list();
  const std::size_t count = list.size();
  Index batch = 0;
  const auto rows = [&](const BasicTensor<T>& x, const ForwardContext* context) {
    if (data.tokens) return counted_rows(x, data.tokens(batch));
    return counted_rows(x, context == nullptr ? std::vector<unsigned char>() : context->token_mask);
  };

  // Which sites see the same numbers in the first batch.
  std::vector<std::uint64_t> digests(count, 0);
  for (std::size_t s = 0; s < count; ++s)
    list[s].probe->see = [&rows, digest = &digests[s]](const BasicTensor<T>& x,
                                                       const ForwardContext* context) {
      using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
      std::uint64_t h = 1469598103934665603ULL;
      for (const T v : rows(x, context)) h = (h ^ std::bit_cast<Bits>(v)) * 1099511628211ULL;
      *digest = h;
    };
  run_without_gradients(data, 0);
  std::vector<std::size_t> leader(count);
  std::vector<Index> limit(count), rank(count);
  Index budget = 0;
  for (std::size_t s = 0; s < count; ++s) {
    leader[s] = static_cast<std::size_t>(std::find(digests.begin(), digests.end(), digests[s]) -
                                         digests.begin());
    budget += list[s].config.rank;
    const auto most =
        static_cast<Index>(std::nearbyint(static_cast<double>(list[s].config.rank) * options.rho));
    limit[s] = std::min(most, list[s].site->in_features());
    limit[leader[s]] = std::max(limit[leader[s]], limit[s]);
  }
  for (std::size_t s = 0; s < count; ++s) limit[s] = rank[s] = limit[leader[s]];

  struct State {
    IncrementalPca<T> pca;
    std::vector<bool> converged;
    bool running = true;
  };
  std::vector<std::unique_ptr<State>> states(count);
  for (std::size_t s = 0; s < count; ++s) {
    if (leader[s] != s) {
      list[s].probe->see = {};
      continue;
    }
    states[s] = std::make_unique<State>(State{
        IncrementalPca<T>(limit[s]), std::vector<bool>(static_cast<std::size_t>(limit[s])), true});
    list[s].probe->see = [&, state = states[s].get()](const BasicTensor<T>& x,
                                                      const ForwardContext* context) {
      if (!state->running) return;
      const auto before = state->pca.components();
      if (!state->pca.add(rows(x, context)) || !before) return;
      const auto now = state->pca.components();
      for (Index k = 0; k < std::min(before.rows(), now.rows()); ++k)
        state->converged[static_cast<std::size_t>(k)] =
            kernels::dot(before.data() + k * x.cols(), now.data() + k * x.cols(), x.cols()) >=
            static_cast<T>(options.tau);
    };
  }
  bool done = false;
  for (Index step = 0; !done; ++step) {
    if (step >= data.rounds * data.batches)
      throw ValueError(concat("EVA: the directions of the inputs still move after ", data.rounds,
                              " rounds; lower tau, or give more data"));
    done = true;
    for (std::size_t s = 0; s < count; ++s) {
      if (leader[s] != s) continue;
      const auto& c = states[s]->converged;
      states[s]->running =
          !std::all_of(c.begin(), c.begin() + std::min(rank[s], static_cast<Index>(c.size())),
                       [](bool yes) { return yes; });
      done = done && !states[s]->running;
    }
    if (done) break;
    batch = step % data.batches;
    run_without_gradients(data, batch);
    if (std::any_of(states.begin(), states.end(),
                    [](const auto& state) { return state && state->pca.empty(); }))
      continue;
    std::vector<std::vector<double>> shares;
    for (std::size_t s = 0; s < count; ++s) shares.push_back(states[leader[s]]->pca.explained());
    rank = eva_ranks(shares, budget);
    for (std::size_t s = 0; s < count; ++s)  // the site whose directions are kept has the most
      if (rank[s] > rank[leader[s]]) std::swap(rank[s], rank[leader[s]]);
  }

  Calibration<T> all;
  ConfigValue::List targets;
  ConfigValue::Map ranks, alphas;
  for (std::size_t s = 0; s < count; ++s) {
    if (rank[s] == 0) continue;
    const std::string path = list[s].site->path();
    const auto& pca = states[leader[s]]->pca;
    auto directions = pca.components().slice_rows(0, rank[s]).clone();
    if (options.whiten)
      for (Index k = 0; k < rank[s]; ++k)
        for (Index i = 0; i < directions.cols(); ++i)
          directions(k, i) /= std::sqrt(pca.singular_values()[k]);
    all[path].directions = directions;
    targets.emplace_back(path);
    double alpha = list[s].config.alpha;
    if (rank[s] != list[s].config.rank && options.adjust_scaling_factors)
      alpha *= static_cast<double>(rank[s]) / static_cast<double>(list[s].config.rank);
    if (rank[s] != config.rank) ranks[path] = rank[s];
    if (alpha != config.alpha) alphas[path] = alpha;
  }
  map["target_modules"] = targets;
  map["rank_pattern"] = ranks;
  map["alpha_pattern"] = alphas;
  return all;
}

}  // namespace detail

/// Makes a LoRA whose `init_lora_weights` is eva, corda or lora_ga: runs the frozen model over the
/// data, gathers what the init needs at the sites that the configuration means, and adds the
/// adapter. Other inits are added without a run. EVA decides the ranks of the sites too: the
/// adapter's configuration has them in rank_pattern, with sites of rank zero left out of
/// target_modules. Covariances are kept for all sites at once: in² numbers each.
/// @throws ValueError for data without batches, and for what `BasicAdapterModel::add` refuses
template <std::floating_point T>
AdapterSet<T>& add_calibrated(BasicAdapterModel<T>& model, const std::string& name,
                              ConfigValue::Map config, TorchGenerator& generator,
                              const CalibrationData<T>& data) {
  const auto it = config.find("init_lora_weights");
  const auto* init = it == config.end() ? nullptr : it->second.template get_if<std::string>();
  const std::string word = init == nullptr ? "" : *init;
  if (word != "eva" && word != "corda" && word != "lora_ga")
    return model.add(name, config, generator);
  if (data.batches < 1 || !data.run) throw ValueError("calibration: no batches");
  const auto calibration = word == "eva"     ? detail::eva_directions(model, config, data)
                           : word == "corda" ? detail::covariances(model, config, data)
                                             : detail::weight_gradients(model, config, data);
  return model.add(name, config, generator, &calibration);
}

}  // namespace graft::inline v0_1
