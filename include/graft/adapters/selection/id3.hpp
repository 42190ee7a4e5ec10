#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/procedure_state.hpp"
#include "graft/adapters/selection/sparse_delta.hpp"

namespace graft::inline v0_1 {

/// Configuration of ID3 and PaFi. The procedure of ID3 is the optimiser of the values; the learning
/// rate is that of the training run.
struct ID3Config {
  Index budget = 0;         ///< elements of all matrices together; 0: one in a hundred
  Index max_steps = 0;      ///< over which the budget is spent; 0: those of the training run
  double eps = 1;           ///< score |g| / (|θ| + eps)^exp
  double exp = 1;           ///< 0: by the gradient alone
  bool pafi = false;        ///< PaFi: the `budget` smallest |θ| at once
  double weight_decay = 0;  ///< decoupled, of the trained elements of the weights
  std::vector<double> betas = {0.9, 0.999};
  double adam_eps = 1e-8;
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "ID3";

  template <class Visitor>
  void fields(Visitor& v) {
    v("budget", budget);
    v("max_steps", max_steps);
    v("eps", eps);
    v("exp", exp);
    optional_field(v, "pafi", pafi, false);
    v("weight_decay", weight_decay);
    v("betas", betas);
    v("adam_eps", adam_eps);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for a number out of its range.
  void validate() const {
    if (budget < 0 || max_steps < 0)
      throw ValueError(concat("ID3: budget ", budget, ", max_steps ", max_steps));
    if (!(eps >= 0)) throw ValueError(concat("ID3: eps ", eps, ", expected at least 0"));
    if (betas.size() != 2) throw ValueError("ID3: betas, expected two numbers");
  }
  Index budget_of(Index elements) const {
    return std::min(elements, budget > 0 ? budget : std::max<Index>(1, elements / 100));
  }
  /// Elements that step `step` (from 1) of `steps` releases: the rest of the division goes to the
  /// first steps.
  static Index released(Index budget, Index step, Index steps) {
    if (step < 1 || step > steps) return 0;
    return budget / steps + (step <= budget % steps ? 1 : 0);
  }
};

namespace selection {

/// |g| / (|θ| + ε)^exp.
template <std::floating_point T>
T id3_score(T weight, T gradient, const ID3Config& config) {
  const double base = std::abs(static_cast<double>(weight)) + config.eps;
  return static_cast<T>(std::abs(static_cast<double>(gradient)) / std::pow(base, config.exp));
}

/// What ID3 holds of one matrix: the released places with the sums of their moves, and Adam's
/// moments.
template <std::floating_point T>
struct ID3State {
  Places places;
  std::vector<T> values, m1, m2;

  void release(const Places& more) {
    places.insert(places.end(), more.begin(), more.end());
    values.resize(places.size(), T{0});
    m1.resize(places.size(), T{0});
    m2.resize(places.size(), T{0});
  }
  /// Step number `step` of the run; the bias correction is that of the run, not of the place.
  void step(const BasicTensor<T>& weight, const BasicTensor<T>& gradient, Index step, double rate,
            const ID3Config& config) {
    const double b1 = config.betas[0], b2 = config.betas[1], t = static_cast<double>(step);
    for (std::size_t i = 0; i < places.size(); ++i) {
      const double g = static_cast<double>(gradient[places[i]]);
      const double first = b1 * static_cast<double>(m1[i]) + (1 - b1) * g,
                   second = b2 * static_cast<double>(m2[i]) + (1 - b2) * g * g;
      m1[i] = static_cast<T>(first);
      m2[i] = static_cast<T>(second);
      const double value = static_cast<double>(values[i]),
                   decay = config.weight_decay * (static_cast<double>(weight[places[i]]) + value);
      const double den = std::sqrt(second / (1 - std::pow(b2, t))) + config.adam_eps;
      values[i] = static_cast<T>(value - rate * decay - rate * first / (1 - std::pow(b1, t)) / den);
    }
  }
};

/// Releases the `count` best places of all matrices together that are not yet released. θ is the
/// weight with what was learned; ties go to the smaller place, the first matrix.
template <std::floating_point T>
void release_best(const std::vector<BasicTensor<T>>& weights,
                  const std::vector<BasicTensor<T>>& gradients, std::vector<ID3State<T>>& states,
                  Index count, const ID3Config& config) {
  std::vector<BasicTensor<T>> scores;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    auto theta = weights[i].clone();
    for (std::size_t j = 0; j < states[i].places.size(); ++j)
      theta[states[i].places[j]] += states[i].values[j];
    for (Index j = 0; j < theta.size(); ++j)
      theta[j] = id3_score(theta[j], gradients[i][j], config);
    for (const auto place : states[i].places) theta[place] = T{-1};
    scores.push_back(std::move(theta));
  }
  Index open = 0;
  for (std::size_t i = 0; i < weights.size(); ++i)
    open += weights[i].size() - static_cast<Index>(states[i].places.size());
  const auto chosen = best_of_all(scores, std::min(count, open));
  for (std::size_t i = 0; i < weights.size(); ++i) states[i].release(chosen[i]);
}

/// The `budget` smallest |θ| of all matrices together (PaFi).
template <std::floating_point T>
std::vector<Places> smallest_weights(const std::vector<BasicTensor<T>>& weights, Index budget) {
  std::vector<BasicTensor<T>> scores;
  for (const auto& w : weights) scores.push_back(magnitude(w, false));
  return best_of_all(scores, budget);
}

}  // namespace selection

/// ID3 in training: releases places by the gradient of each step, then moves all that are released.
template <std::floating_point T>
class ID3Procedure final : public Procedure<T> {
 public:
  ID3Procedure(const ID3Config& config, std::vector<BasicSparseDelta<T>*> deltas)
      : config_(config), deltas_(std::move(deltas)) {}
  void before_step(const StepInfo&) override {
    take_over();
    sums_.clear();
    for (auto* delta : deltas_) sums_.push_back(selection::observe_gradients(*delta, false));
  }
  void after_backward(const StepInfo& info) override {
    if (sums_.empty()) return;
    std::vector<BasicTensor<T>> weights, gradients;
    Index elements = 0;
    for (std::size_t i = 0; i < deltas_.size(); ++i) {
      weights.push_back(deltas_[i]->frozen_weight());
      gradients.push_back(sums_[i]->sum());
      elements += weights.back().size();
      deltas_[i]->observe({});
    }
    sums_.clear();
    if (!config_.pafi) {
      const Index steps = config_.max_steps > 0 ? config_.max_steps : info.total_steps;
      selection::release_best(weights, gradients, states_,
                              config_.released(config_.budget_of(elements), info.step, steps),
                              config_);
    }
    for (std::size_t i = 0; i < deltas_.size(); ++i) {
      auto& s = states_[i];
      s.step(weights[i], gradients[i], info.step, info.learning_rate, config_);
      auto& delta = *deltas_[i];
      if (s.places.size() != delta.places().size()) delta.select(s.places);
      std::copy(s.values.begin(), s.values.end(), delta.values().value().data());
      delta.values().zero_grad();  // nothing is left for the optimiser of the run
    }
  }
  std::map<std::string, std::vector<double>> state() const override {
    detail::ProcedureState all;
    for (std::size_t i = 0; i < states_.size(); ++i) {
      const auto& path = deltas_[i]->path();
      all[path + ".m1"].assign(states_[i].m1.begin(), states_[i].m1.end());
      all[path + ".m2"].assign(states_[i].m2.begin(), states_[i].m2.end());
    }
    return all;
  }
  void set_state(const std::map<std::string, std::vector<double>>& all) override {
    states_.clear();
    if (all.empty()) return;
    take_over();
    for (std::size_t i = 0; i < states_.size(); ++i) {
      const Shape shape{static_cast<Index>(states_[i].places.size())};
      const auto get = [&](const char* name, std::vector<T>& to) {
        if (const auto values = detail::kept_values<T>(all, deltas_[i]->path() + name, shape))
          to.assign(values.begin(), values.end());
      };
      get(".m1", states_[i].m1);
      get(".m2", states_[i].m2);
    }
  }

 private:
  /// Goes on from what the parts hold.
  void take_over() {
    if (!states_.empty()) return;
    states_.resize(deltas_.size());
    for (std::size_t i = 0; i < deltas_.size(); ++i) {
      states_[i].release(deltas_[i]->places());
      const auto& values = deltas_[i]->values().value();
      states_[i].values.assign(values.begin(), values.end());
    }
  }

  ID3Config config_;
  std::vector<BasicSparseDelta<T>*> deltas_;
  std::vector<selection::ID3State<T>> states_;
  std::vector<std::shared_ptr<selection::GradientSum<T>>> sums_;
};

/// ID3, step-by-step unmasking: step t of T releases ⌊B/T⌋ more elements of all matrices together
/// (one more in the first B mod T steps), those with the best |g| / (|θ| + ε)^exp; what is released
/// stays so and is moved by AdamW, whose bias correction counts the steps of the run. PaFi
/// (`pafi`): the B elements with the smallest |θ| from the start.
///
/// Trained: `budget` in the end. The identity at the start; merges. One dense gradient a matrix
/// while a step runs. Sources: Agarwal et al. 2024 (arXiv:2408.14470), algorithm 1; Liao et al.
/// 2023 (arXiv:2305.16742) for PaFi. Tensors: sparse_indices and sparse_values, in the order of
/// their release.
template <std::floating_point T>
struct ID3Method {
  using Scalar = T;
  using Config = ID3Config;
  static MethodInfo info() {
    return {.peft_type = "ID3",
            .name = "ID3 and PaFi",
            .family = "selection",
            .paper = "arXiv:2408.14470",
            .sites = "linear, conv",
            .parameters = "; budget in all",
            .in_peft = false,
            .starts_empty = "its procedure selects step by step"};
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>&) {
    config.validate();
    return linear_part(BasicSparseDelta<T>(site));
  }
  static std::unique_ptr<Procedure<T>> procedure(const Config& config,
                                                 const std::vector<PlacedPart<T>>& parts) {
    return std::make_unique<ID3Procedure<T>>(config, selection::sparse_deltas(parts));
  }
  template <class Set>
  static void finish(const Config& config, Set& set, BasicSiteTable<T>&, InitContext<T>& context) {
    if (context.loading || !config.pafi) return;
    const auto deltas = selection::sparse_deltas(set.parts());
    std::vector<BasicTensor<T>> weights;
    Index elements = 0;
    for (const auto* delta : deltas) {
      weights.push_back(delta->frozen_weight());
      elements += weights.back().size();
    }
    auto places = selection::smallest_weights(weights, config.budget_of(elements));
    for (std::size_t i = 0; i < deltas.size(); ++i) deltas[i]->select(std::move(places[i]));
  }
};

}  // namespace graft::inline v0_1
