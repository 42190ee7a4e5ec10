#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/procedure_state.hpp"
#include "graft/adapters/selection/sparse_delta.hpp"

namespace graft::inline v0_1 {

/// Configuration of static sparse masks.
struct StaticMaskConfig {
  double density = 0.005;               ///< share of the elements that is trained
  std::string selection = "magnitude";  ///< random, magnitude, smallest_magnitude, snip, fisher
  std::string scope = "global";         ///< best of all matrices together, or of each: tensor
  /// What decay acts on: delta (that of the optimiser), or weight, W + value, by `weight_decay`.
  std::string weight_decay_on = "delta";
  double weight_decay = 0;
  Index score_steps = 32;  ///< snip, fisher: first steps, which only score
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "STATIC_MASK";

  template <class Visitor>
  void fields(Visitor& v) {
    v("density", density);
    v("selection", selection);
    v("scope", scope);
    v("weight_decay_on", weight_decay_on);
    optional_field(v, "weight_decay", weight_decay, 0.0);
    optional_field(v, "score_steps", score_steps, Index{32});
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for an unknown word or a density outside of (0, 1].
  void validate() const {
    if (!(density > 0 && density <= 1))
      throw ValueError(concat("static mask: density ", density, ", expected (0, 1]"));
    if (selection != "random" && selection != "magnitude" && selection != "smallest_magnitude" &&
        selection != "snip" && selection != "fisher")
      throw ValueError(concat("static mask: selection '", selection,
                              "', expected random, magnitude, smallest_magnitude, snip or fisher"));
    if (scope != "global" && scope != "tensor")
      throw ValueError(concat("static mask: scope '", scope, "', expected global or tensor"));
    if (weight_decay_on != "delta" && weight_decay_on != "weight")
      throw ValueError(
          concat("static mask: weight_decay_on '", weight_decay_on, "', expected delta or weight"));
    if (score_steps < 1) throw ValueError(concat("static mask: score_steps ", score_steps));
  }
  bool by_gradient() const { return selection == "snip" || selection == "fisher"; }
};

/// Static masks in training: the first steps of a gradient-based selection only score, then the
/// places are fixed; and the decay of the weight itself where that is asked for.
template <std::floating_point T>
class StaticMaskProcedure final : public Procedure<T> {
 public:
  StaticMaskProcedure(const StaticMaskConfig& config, std::vector<BasicSparseDelta<T>*> deltas)
      : config_(config), deltas_(std::move(deltas)) {}

  void before_step(const StepInfo& info) override {
    if (!config_.by_gradient() || info.step > config_.score_steps || selection::any_chosen(deltas_))
      return;
    if (sums_.empty()) begin();
  }
  std::map<std::string, std::vector<double>> state() const override {
    detail::ProcedureState all;
    for (std::size_t i = 0; i < sums_.size(); ++i)
      detail::keep_values(all, std::to_string(i), sums_[i]->sum());
    return all;
  }
  void set_state(const std::map<std::string, std::vector<double>>& all) override {
    for (auto* delta : deltas_) delta->observe({});
    sums_.clear();
    if (all.empty()) return;
    begin();
    for (std::size_t i = 0; i < sums_.size(); ++i)
      if (auto sum = detail::kept_values<T>(all, std::to_string(i), sums_[i]->sum().shape()))
        sums_[i]->set_sum(std::move(sum));
  }
  void after_backward(const StepInfo& info) override {
    if (!sums_.empty()) {
      if (info.step < config_.score_steps) return;
      std::vector<BasicTensor<T>> scores;
      for (std::size_t i = 0; i < sums_.size(); ++i)
        scores.push_back(config_.selection == "fisher"
                             ? sums_[i]->sum()
                             : selection::snip(deltas_[i]->frozen_weight(), sums_[i]->sum()));
      auto places = selection::select(scores, config_.density, config_.scope == "global");
      for (std::size_t i = 0; i < deltas_.size(); ++i) {
        deltas_[i]->observe({});
        deltas_[i]->select(std::move(places[i]));
      }
      sums_.clear();
      return;
    }
    if (config_.weight_decay_on != "weight") return;
    for (const auto* delta : deltas_)
      decay_weight(delta->frozen_weight(), delta->places(), delta->values().value(),
                   info.learning_rate * config_.weight_decay);
  }
  /// value −= rate · (w[place] + value).
  static void decay_weight(const BasicTensor<T>& weight, const selection::Places& places,
                           const BasicTensor<T>& values, double rate) {
    T* value = values.data();
    for (std::size_t j = 0; j < places.size(); ++j)
      value[j] -= static_cast<T>(rate) * (weight[places[j]] + value[j]);
  }

 private:
  void begin() {
    for (auto* delta : deltas_)
      sums_.push_back(selection::observe_gradients(*delta, config_.selection == "fisher"));
  }

  StaticMaskConfig config_;
  std::vector<BasicSparseDelta<T>*> deltas_;
  std::vector<std::shared_ptr<selection::GradientSum<T>>> sums_;
};

/// Static sparse masks: a fixed set of ⌊density · size⌋ elements is trained, chosen once by chance,
/// magnitude, SNIP or Fisher information.
///
/// Trained: the chosen elements. The identity at the start; merges. Before a gradient-based
/// selection has its scores nothing is trained. Sources: Sung et al. 2021 (arXiv:2111.09839),
/// section 3; Lee et al. 2019 (arXiv:1810.02340), eq. 6 for SNIP. Labels of the data stand for
/// those of the model in the Fisher information.
template <std::floating_point T>
struct StaticMaskMethod {
  using Scalar = T;
  using Config = StaticMaskConfig;
  static MethodInfo info() {
    return {.peft_type = "STATIC_MASK",
            .name = "Static sparse masks",
            .family = "selection",
            .paper = "arXiv:2111.09839",
            .sites = "linear, conv",
            .parameters = "once floor(density weights)",
            .in_peft = false};
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config&, const LinearSiteInfo<T>& site,
                                               InitContext<T>&) {
    return linear_part(BasicSparseDelta<T>(site));
  }
  static std::unique_ptr<Procedure<T>> procedure(const Config& config,
                                                 const std::vector<PlacedPart<T>>& parts) {
    return std::make_unique<StaticMaskProcedure<T>>(config, selection::sparse_deltas(parts));
  }
  template <class Set>
  static void finish(const Config& config, Set& set, BasicSiteTable<T>&, InitContext<T>& context) {
    if (context.loading || config.by_gradient()) return;
    const auto deltas = selection::sparse_deltas(set.parts());
    std::vector<BasicTensor<T>> scores;
    for (const auto* delta : deltas) {
      if (config.selection == "random") {
        auto s = BasicTensor<T>::empty({delta->out_features(), delta->in_features()});
        context.generator.uniform(s.data(), s.size(), 0, 1);
        scores.push_back(std::move(s));
      } else {
        scores.push_back(
            selection::magnitude(delta->frozen_weight(), config.selection == "magnitude"));
      }
    }
    auto places = selection::select(scores, config.density, config.scope == "global");
    for (std::size_t i = 0; i < deltas.size(); ++i) deltas[i]->select(std::move(places[i]));
  }
};

}  // namespace graft::inline v0_1
