#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <numbers>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "graft/adapters/selection/sparse_delta.hpp"
#include "graft/tensor/transposed.hpp"

namespace graft::inline v0_1 {

/// Configuration of SpIEL. The procedure is the optimiser of the values; learning rates are those
/// of the training run.
struct SpIELConfig {
  std::string selection_algorithm = "rigl";  ///< rigl: accumulated gradients; sm3: momenta
  /// Trained elements of all matrices together, shared out by their sizes; 0: one in a hundred.
  Index num_tunable_weights = 0;
  Index reselection_steps = 20;
  Index selection_accumulation_steps = 5;
  Index total_update_steps = 0;           ///< 0: those of the training run
  Index gradient_accumulation_steps = 1;  ///< batches whose gradients make one step
  double initial_reselection_rate = 0.2;
  std::string reselection_rate_policy = "linear";  ///< linear or cosine
  std::vector<double> betas = {0.9, 0.999};
  double momentum = 0;        ///< of sm3
  std::optional<double> eps;  ///< none: 1e-6, or 1e-8 of sm3
  double weight_decay = 0;
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "SPIEL";

  template <class Visitor>
  void fields(Visitor& v) {
    v("selection_algorithm", selection_algorithm);
    v("num_tunable_weights", num_tunable_weights);
    v("reselection_steps", reselection_steps);
    v("selection_accumulation_steps", selection_accumulation_steps);
    v("total_update_steps", total_update_steps);
    v("gradient_accumulation_steps", gradient_accumulation_steps);
    v("initial_reselection_rate", initial_reselection_rate);
    v("reselection_rate_policy", reselection_rate_policy);
    v("betas", betas);
    v("momentum", momentum);
    v("eps", eps);
    v("weight_decay", weight_decay);
    v("target_modules", target_modules);
    select.fields(v);
  }
  bool sm3() const { return selection_algorithm == "sm3"; }
  double epsilon() const { return eps ? *eps : sm3() ? 1e-8 : 1e-6; }
  /// @throws ValueError for an unknown word or steps that do not fit.
  void validate() const {
    if (selection_algorithm != "rigl" && selection_algorithm != "sm3")
      throw ValueError(
          concat("SpIEL: selection_algorithm '", selection_algorithm, "', expected rigl or sm3"));
    if (reselection_rate_policy != "linear" && reselection_rate_policy != "cosine")
      throw ValueError(concat("SpIEL: reselection_rate_policy '", reselection_rate_policy,
                              "', expected linear or cosine"));
    if (selection_accumulation_steps < 1 || reselection_steps <= selection_accumulation_steps)
      throw ValueError(concat("SpIEL: ", selection_accumulation_steps, " accumulation steps in ",
                              reselection_steps,
                              " reselection steps, expected fewer, and one at least"));
    if (betas.size() != 2) throw ValueError("SpIEL: betas, expected two numbers");
  }
  /// Steps count from 1. True if gradients of the step are accumulated.
  bool accumulates(Index step) const {
    return (step - 1) % reselection_steps < selection_accumulation_steps;
  }
  bool reselects(Index step) const {
    return step % reselection_steps == selection_accumulation_steps;
  }
  /// Share of the elements that is replaced after a step: all at first with the linear policy, then
  /// p₀ (1 − t/T); p₀ (1 + cos(π t/T))/2 with the other.
  double rate(Index step, Index total) const {
    const double part = total > 0 ? static_cast<double>(step) / static_cast<double>(total) : 0;
    if (reselection_rate_policy == "cosine")
      return initial_reselection_rate * (1 + std::cos(std::numbers::pi * part)) / 2;
    if (step == selection_accumulation_steps) return 1;
    return initial_reselection_rate * std::max(0.0, 1 - part);
  }
};

namespace selection {

/// Slots of the m smallest |values|, the smallest first.
template <std::floating_point T>
Places smallest_slots(const std::vector<T>& values, Index m) {
  return best(static_cast<Index>(values.size()), m,
              [&](std::int64_t i) { return -std::abs(values[static_cast<std::size_t>(i)]); });
}

/// What SpIEL-AG holds of one matrix: places and values, their moments of Adam with an age each,
/// and the gradients of candidates while it accumulates.
template <std::floating_point T>
struct SpIELAdam {
  Places places;
  std::vector<T> values, m1, m2, age;
  Places candidates;
  std::vector<T> sums, squares;
  Index samples = 0;

  explicit SpIELAdam(Places where = {}) : places(std::move(where)) {
    const auto k = places.size();
    values.assign(k, 0);
    m1.assign(k, 0);
    m2.assign(k, 0);
    age.assign(k, 1);
  }
  void begin() {
    candidates.clear();
    samples = 0;
  }
  bool begun() const { return !candidates.empty(); }
  /// The first gradient of a phase, whole: chooses the candidates.
  void choose(const BasicTensor<T>& gradient) {
    candidates = best(magnitude(gradient), static_cast<Index>(places.size()));
    sums.assign(candidates.size(), 0);
    squares.assign(candidates.size(), 0);
    accumulate([&](std::int64_t place) { return gradient[place]; });
  }
  /// One more gradient, by place.
  template <class Gradient>
  void accumulate(Gradient&& gradient) {
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      const T g = gradient(candidates[i]);
      sums[i] += g;
      squares[i] += g * g;
    }
    ++samples;
  }
  void step(const T* gradient, double rate, const SpIELConfig& config) {
    const double b1 = config.betas[0], b2 = config.betas[1];
    for (std::size_t i = 0; i < places.size(); ++i) {
      const double g = gradient[i];
      const double first = b1 * m1[i] + (1 - b1) * g, second = b2 * m2[i] + (1 - b2) * g * g;
      m1[i] = static_cast<T>(first);
      m2[i] = static_cast<T>(second);
      const double a = age[i];
      const double den = (std::sqrt(second) + config.epsilon()) * (1 - std::pow(b1, a)) /
                         std::sqrt(1 - std::pow(b2, a));
      values[i] =
          static_cast<T>((values[i] - rate * first / den) * (1 - rate * config.weight_decay));
      age[i] += 1;
    }
  }
  /// Drops the m smallest values and grows the m candidates with the largest sums; one that is in
  /// both sets stays as it is.
  void reselect(Index m, const SpIELConfig& config) {
    const auto dropped = smallest_slots(values, m);
    std::vector<char> is_dropped(places.size(), 0);
    for (const auto slot : dropped) is_dropped[static_cast<std::size_t>(slot)] = 1;
    std::unordered_set<std::int64_t> kept;
    for (std::size_t i = 0; i < places.size(); ++i)
      if (!is_dropped[i]) kept.insert(places[i]);
    Places open;
    for (std::size_t i = 0; i < candidates.size(); ++i)
      if (!kept.contains(candidates[i])) open.push_back(static_cast<std::int64_t>(i));
    std::stable_sort(open.begin(), open.end(), [&](std::int64_t a, std::int64_t b) {
      const T sa = std::abs(sums[static_cast<std::size_t>(a)]),
              sb = std::abs(sums[static_cast<std::size_t>(b)]);
      return sa > sb || (sa == sb && candidates[static_cast<std::size_t>(a)] <
                                         candidates[static_cast<std::size_t>(b)]);
    });
    if (static_cast<Index>(open.size()) > m) open.resize(static_cast<std::size_t>(m));
    std::unordered_set<std::int64_t> active(places.begin(), places.end()), grown;
    for (const auto i : open) grown.insert(candidates[static_cast<std::size_t>(i)]);
    Places fresh;
    for (const auto i : open)
      if (!active.contains(candidates[static_cast<std::size_t>(i)])) fresh.push_back(i);
    std::size_t next = 0;
    const double n = static_cast<double>(samples);
    const double fresh_age =
        n / static_cast<double>(std::max<Index>(1, config.gradient_accumulation_steps));
    for (const auto slot : dropped) {
      if (next == fresh.size()) break;
      const auto s = static_cast<std::size_t>(slot);
      if (grown.contains(places[s])) continue;
      const auto i = static_cast<std::size_t>(fresh[next++]);
      places[s] = candidates[i];
      values[s] = 0;
      age[s] = static_cast<T>(fresh_age);
      m1[s] = static_cast<T>(sums[i] / n * (1 - std::pow(config.betas[0], fresh_age)));
      m2[s] = static_cast<T>(squares[i] / n * (1 - std::pow(config.betas[1], fresh_age)));
    }
    begin();
  }
};

/// What SpIEL-MA holds of one matrix: places, values and momenta, and accumulators of rows and
/// columns (SM3-II).
template <std::floating_point T>
struct SpIELMomentum {
  Index out, in;
  Places places;
  std::vector<T> values, momenta, rows, columns;

  SpIELMomentum(Index out_features, Index in_features, Places where)
      : out(out_features), in(in_features), places(std::move(where)) {
    values.assign(places.size(), 0);
    momenta.assign(places.size(), 0);
    rows.assign(static_cast<std::size_t>(out), 0);
    columns.assign(static_cast<std::size_t>(in), 0);
  }
  void step(const T* gradient, double rate, const SpIELConfig& config) {
    std::vector<T> new_rows = rows, new_columns = columns;
    for (std::size_t i = 0; i < places.size(); ++i) {
      const auto r = static_cast<std::size_t>(places[i] / in),
                 c = static_cast<std::size_t>(places[i] % in);
      const T g = gradient[i], v = std::min(rows[r], columns[c]) + g * g;
      new_rows[r] = std::max(new_rows[r], v);
      new_columns[c] = std::max(new_columns[c], v);
      double u = static_cast<double>(g) / std::sqrt(static_cast<double>(v) + config.epsilon());
      if (config.momentum > 0) {
        u = config.momentum * momenta[i] + (1 - config.momentum) * u;
        momenta[i] = static_cast<T>(u);
      }
      values[i] = static_cast<T>((values[i] - rate * u) * (1 - rate * config.weight_decay));
    }
    rows = std::move(new_rows);
    columns = std::move(new_columns);
  }
  /// Replaces the m smallest values by the inactive places with the largest product of row and
  /// column.
  void reselect(Index m) {
    const std::unordered_set<std::int64_t> active(places.begin(), places.end());
    m = std::min<Index>(m, out * in - static_cast<Index>(active.size()));
    const auto grown = best(out * in, m, [&](std::int64_t place) {
      return active.contains(place) ? T{-1}
                                    : rows[static_cast<std::size_t>(place / in)] *
                                          columns[static_cast<std::size_t>(place % in)];
    });
    const auto dropped = smallest_slots(values, m);
    for (std::size_t i = 0; i < dropped.size(); ++i) {
      const auto slot = static_cast<std::size_t>(dropped[i]);
      places[slot] = grown[i];
      values[slot] = 0;
      momenta[slot] = 0;
    }
  }
};

}  // namespace selection

/// SpIEL in training: the optimiser of the values, and the exchange of places.
template <std::floating_point T>
class SpIELProcedure final : public Procedure<T> {
 public:
  SpIELProcedure(const SpIELConfig& config, std::vector<BasicSparseDelta<T>*> deltas)
      : config_(config), deltas_(std::move(deltas)) {}

  void before_step(const StepInfo& info) override {
    if (adam_.empty() && momentum_.empty()) take_over();
    if (config_.sm3()) return;
    const bool on = config_.accumulates(info.step);
    if ((info.step - 1) % config_.reselection_steps == 0)
      for (auto& state : adam_) state.begin();
    for (std::size_t i = 0; i < deltas_.size(); ++i) {
      if (!on) {
        deltas_[i]->observe({});
        continue;
      }
      deltas_[i]->observe([this, i](const auto& x, const auto& dy, Index) { see(i, x, dy); });
    }
  }
  void after_backward(const StepInfo& info) override {
    const Index total =
        config_.total_update_steps > 0 ? config_.total_update_steps : info.total_steps;
    for (std::size_t i = 0; i < deltas_.size(); ++i) {
      auto& delta = *deltas_[i];
      const auto& gradient = delta.values().grad();
      if (!gradient) continue;
      const bool exchange = config_.reselects(info.step);
      const auto m = static_cast<Index>(
          std::floor(config_.rate(info.step, total) * static_cast<double>(delta.places().size())));
      if (config_.sm3()) {
        auto& state = momentum_[i];
        state.step(gradient.data(), info.learning_rate, config_);
        if (exchange) state.reselect(m);
        write(delta, state, exchange);
      } else {
        auto& state = adam_[i];
        state.step(gradient.data(), info.learning_rate, config_);
        if (exchange) state.reselect(m, config_);
        write(delta, state, exchange);
      }
      // Nothing is left for the optimiser of the run.
      delta.values().zero_grad();
    }
  }
  std::map<std::string, std::vector<double>> state() const override {
    std::map<std::string, std::vector<double>> map;
    const auto put = [&](std::size_t i, const char* name, const auto& values) {
      map[deltas_[i]->path() + "." + name] = std::vector<double>(values.begin(), values.end());
    };
    for (std::size_t i = 0; i < adam_.size(); ++i) {
      put(i, "m1", adam_[i].m1);
      put(i, "m2", adam_[i].m2);
      put(i, "age", adam_[i].age);
      put(i, "candidates", adam_[i].candidates);
      put(i, "sums", adam_[i].sums);
      put(i, "squares", adam_[i].squares);
      put(i, "samples", std::vector<Index>{adam_[i].samples});
    }
    for (std::size_t i = 0; i < momentum_.size(); ++i) {
      put(i, "momenta", momentum_[i].momenta);
      put(i, "rows", momentum_[i].rows);
      put(i, "columns", momentum_[i].columns);
    }
    return map;
  }
  void set_state(const std::map<std::string, std::vector<double>>& map) override {
    if (map.empty()) return;
    take_over();
    const auto get = [&](std::size_t i, const char* name, auto& values) {
      const auto it = map.find(deltas_[i]->path() + "." + name);
      if (it == map.end()) return;
      values.clear();
      for (const double v : it->second)
        values.push_back(static_cast<typename std::decay_t<decltype(values)>::value_type>(v));
    };
    for (std::size_t i = 0; i < adam_.size(); ++i) {
      get(i, "m1", adam_[i].m1);
      get(i, "m2", adam_[i].m2);
      get(i, "age", adam_[i].age);
      get(i, "candidates", adam_[i].candidates);
      get(i, "sums", adam_[i].sums);
      get(i, "squares", adam_[i].squares);
      std::vector<Index> samples;
      get(i, "samples", samples);
      adam_[i].samples = samples.empty() ? 0 : samples[0];
    }
    for (std::size_t i = 0; i < momentum_.size(); ++i) {
      get(i, "momenta", momentum_[i].momenta);
      get(i, "rows", momentum_[i].rows);
      get(i, "columns", momentum_[i].columns);
    }
  }

 private:
  void take_over() {
    adam_.clear();
    momentum_.clear();
    for (const auto* delta : deltas_) {
      const auto& values = delta->values().value();
      if (config_.sm3()) {
        momentum_.emplace_back(delta->out_features(), delta->in_features(), delta->places());
        momentum_.back().values.assign(values.begin(), values.end());
      } else {
        adam_.emplace_back(delta->places());
        adam_.back().values.assign(values.begin(), values.end());
      }
    }
  }
  void see(std::size_t i, const BasicTensor<T>& x, const BasicTensor<T>& dy) {
    auto& state = adam_[i];
    const Index in = x.cols(), out = dy.cols(), rows = x.rows();
    if (!state.begun()) {
      auto g = BasicTensor<T>::empty({out, in});
      kernels::gemm(true, false, out, in, rows, T{1}, dy.data(), out, x.data(), in, T{0}, g.data(),
                    in);
      state.choose(g);
      return;
    }
    const auto xt = transposed(x.reshape({rows, in})), dyt = transposed(dy.reshape({rows, out}));
    state.accumulate([&](std::int64_t place) {
      return kernels::dot(dyt.data() + place / in * rows, xt.data() + place % in * rows, rows);
    });
  }
  template <class State>
  static void write(BasicSparseDelta<T>& delta, const State& state, bool exchanged) {
    std::copy(state.values.begin(), state.values.end(), delta.values().value().data());
    if (exchanged) delta.replace(state.places, delta.values().value());
  }

  SpIELConfig config_;
  std::vector<BasicSparseDelta<T>*> deltas_;
  std::vector<selection::SpIELAdam<T>> adam_;
  std::vector<selection::SpIELMomentum<T>> momentum_;
};

/// SpIEL: a sparse change of fixed size whose places move: every S steps the elements with the
/// smallest values are dropped and others grow, where accumulated gradients (AG, rigl) or the
/// product of SM3's row and column accumulators (MA, sm3) are largest.
///
/// Trained: k of in · out a matrix, from random places. The identity at the start; merges. Memory
/// beside values: AG 3 k, MA k + in + out; one dense gradient at a time in the first batch of an
/// accumulation of AG, none in MA. Source: Ansell et al. 2024 (arXiv:2401.16405), algorithms 1 and
/// 2.
template <std::floating_point T>
struct SpIELMethod {
  using Scalar = T;
  using Config = SpIELConfig;
  static MethodInfo info() {
    return {.peft_type = "SPIEL",
            .name = "SpIEL",
            .family = "selection",
            .paper = "arXiv:2401.16405",
            .sites = "linear, conv",
            .parameters = "; num_tunable_weights in all",
            .in_peft = false};
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    config.validate();
    BasicSparseDelta<T> delta(site);
    if (!context.loading) {
      Index total = 0;
      for (const auto& [path, shape] : site.all_sites) total += shape.elements();
      const Index size = site.out_features * site.in_features;
      const Index wanted =
          config.num_tunable_weights > 0 ? config.num_tunable_weights : total / 100;
      const Index k =
          std::min(size, std::max<Index>(1, static_cast<Index>(static_cast<double>(wanted) *
                                                               static_cast<double>(size) /
                                                               static_cast<double>(total))));
      auto scores = BasicTensor<T>::empty({size});
      context.generator.uniform(scores.data(), size, 0, 1);
      delta.select(selection::best_sorted(scores, k));
    }
    return linear_part(std::move(delta));
  }
  static std::unique_ptr<Procedure<T>> procedure(const Config& config,
                                                 const std::vector<PlacedPart<T>>& parts) {
    return std::make_unique<SpIELProcedure<T>>(config, selection::sparse_deltas(parts));
  }
};

}  // namespace graft::inline v0_1
