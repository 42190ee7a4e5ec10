#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/procedure_state.hpp"
#include "graft/adapters/selection/sparse_delta.hpp"
#include "graft/kernels/optimizer.hpp"

namespace graft::inline v0_1 {

/// Configuration of SIFT. The procedure is the optimiser of the values; the learning rate is that
/// of the training run.
struct SIFTConfig {
  double sparse_rate = 0.05;              ///< share of the elements of a matrix that is trained
  Index gradient_accumulation_steps = 1;  ///< gradients that are summed for one step
  std::vector<double> betas = {0.9, 0.999};
  double eps = 1e-8;
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "SIFT";

  template <class Visitor>
  void fields(Visitor& v) {
    v("sparse_rate", sparse_rate);
    v("gradient_accumulation_steps", gradient_accumulation_steps);
    v("betas", betas);
    v("eps", eps);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for a share outside of [0, 1], or a number out of its range.
  void validate() const {
    if (!(sparse_rate >= 0 && sparse_rate <= 1))
      throw ValueError(concat("SIFT: sparse_rate ", sparse_rate, ", expected [0, 1]"));
    if (gradient_accumulation_steps < 1)
      throw ValueError(concat("SIFT: gradient_accumulation_steps ", gradient_accumulation_steps,
                              ", expected at least 1"));
    if (betas.size() != 2) throw ValueError("SIFT: betas, expected two numbers");
  }
};

namespace selection {

/// What SIFT holds of one matrix: the places by decreasing first gradient, and Adam's moments of
/// the increments there.
template <std::floating_point T>
struct SIFTState {
  Places places;
  std::vector<T> m1, m2, sum;
  Index seen = 0, steps = 0;

  bool chosen() const { return !places.empty(); }
  /// The first gradient: min(⌊rate · size⌋ + 1, size) places with the largest absolute values.
  void choose(const BasicTensor<T>& gradient, double rate) {
    const Index size = gradient.size();
    const Index k =
        std::min<Index>(static_cast<Index>(std::floor(rate * static_cast<double>(size))) + 1, size);
    places = best(magnitude(gradient), k);
    m1.assign(places.size(), 0);
    m2.assign(places.size(), 0);
    sum.assign(places.size(), 0);
    seen = steps = 0;
  }
  /// One more gradient at the places; moves `values` (as many) after every `accumulation`
  /// gradients. A decay would act on increments, which are zero before each step.
  void see(const T* gradient, T* values, double rate, const SIFTConfig& config) {
    for (std::size_t i = 0; i < places.size(); ++i) sum[i] += gradient[i];
    if (++seen < config.gradient_accumulation_steps) return;
    seen = 0;
    const double t = static_cast<double>(++steps);
    kernels::adamw_step(values, sum.data(), m1.data(), m2.data(), static_cast<Index>(places.size()),
                        rate, config.betas[0], config.betas[1], config.eps, 0.0,
                        1 - std::pow(config.betas[0], t), 1 - std::pow(config.betas[1], t), 1.0);
    std::fill(sum.begin(), sum.end(), T{0});
  }
};

}  // namespace selection

/// SIFT in training: the first backward pass chooses, each later one is gathered.
template <std::floating_point T>
class SIFTProcedure final : public Procedure<T> {
 public:
  SIFTProcedure(const SIFTConfig& config, std::vector<BasicSparseDelta<T>*> deltas)
      : config_(config), deltas_(std::move(deltas)), states_(deltas_.size()) {
    for (std::size_t i = 0; i < deltas_.size(); ++i) resume(i);
  }
  void before_step(const StepInfo&) override {
    if (!sums_.empty()) return;
    for (std::size_t i = 0; i < deltas_.size(); ++i) {
      auto* delta = deltas_[i];
      // Files have the places; a run that begins from one goes on with them.
      if (!delta->places().empty() && !states_[i].chosen()) resume(i);
      if (states_[i].chosen()) continue;
      sums_.emplace_back(i, selection::observe_gradients(*delta, false));
    }
  }
  void after_backward(const StepInfo& info) override {
    for (std::size_t i = 0; i < deltas_.size(); ++i) {
      if (!states_[i].chosen()) continue;
      const auto& values = deltas_[i]->values();
      if (!values.grad()) continue;
      states_[i].see(values.grad().data(), values.value().data(), info.learning_rate, config_);
      values.zero_grad();  // nothing is left for the optimiser of the run
    }
    for (auto& [i, sum] : sums_) {
      states_[i].choose(sum->sum(), config_.sparse_rate);
      deltas_[i]->observe({});
      deltas_[i]->select(states_[i].places);
    }
    sums_.clear();
  }
  std::map<std::string, std::vector<double>> state() const override {
    detail::ProcedureState all;
    for (std::size_t i = 0; i < deltas_.size(); ++i) {
      const auto& s = states_[i];
      if (!s.chosen()) continue;
      const auto& path = deltas_[i]->path();
      all[path + ".m1"].assign(s.m1.begin(), s.m1.end());
      all[path + ".m2"].assign(s.m2.begin(), s.m2.end());
      all[path + ".sum"].assign(s.sum.begin(), s.sum.end());
      all[path + ".steps"] = {static_cast<double>(s.steps), static_cast<double>(s.seen)};
    }
    return all;
  }
  void set_state(const std::map<std::string, std::vector<double>>& all) override {
    for (std::size_t i = 0; i < deltas_.size(); ++i) {
      deltas_[i]->observe({});
      states_[i] = {};
      resume(i);
      const auto& path = deltas_[i]->path();
      const auto get = [&](const char* name, std::vector<T>& to) {
        const Shape shape{static_cast<Index>(to.size())};
        if (const auto values = detail::kept_values<T>(all, path + name, shape))
          to.assign(values.begin(), values.end());
      };
      get(".m1", states_[i].m1);
      get(".m2", states_[i].m2);
      get(".sum", states_[i].sum);
      if (const auto it = all.find(path + ".steps"); it != all.end() && it->second.size() == 2) {
        states_[i].steps = static_cast<Index>(it->second[0]);
        states_[i].seen = static_cast<Index>(it->second[1]);
      }
    }
    sums_.clear();
  }

 private:
  void resume(std::size_t i) {
    auto& s = states_[i];
    s.places = deltas_[i]->places();
    s.m1.assign(s.places.size(), 0);
    s.m2 = s.sum = s.m1;
  }

  SIFTConfig config_;
  std::vector<BasicSparseDelta<T>*> deltas_;
  std::vector<selection::SIFTState<T>> states_;
  std::vector<std::pair<std::size_t, std::shared_ptr<selection::GradientSum<T>>>> sums_;
};

/// SIFT: the entries of each matrix with the largest first gradient are trained, the others stay.
///
/// Trained: Σ min(⌊sparse_rate · size⌋ + 1, size), chosen by the first backward pass, which moves
/// nothing; then AdamW on the gradients gathered there, `gradient_accumulation_steps` of them
/// summed a step. The identity at the start; merges. Source: Song et al. 2024 (arXiv:2312.11875),
/// section 4. Deviation: the paper adds each increment to the weight and starts it at zero again;
/// here the frozen weight stays and the values are the sum of the increments, the same numbers
/// (decay has no effect in either). Tensors: sift_indices [k] in the order of the gradients,
/// sift_values [k].
template <std::floating_point T>
struct SIFTMethod {
  using Scalar = T;
  using Config = SIFTConfig;
  static MethodInfo info() {
    return {.peft_type = "SIFT",
            .name = "SIFT",
            .family = "selection",
            .paper = "arXiv:2312.11875",
            .sites = "linear, conv",
            .parameters = "floor(sparse_rate in out) + 1",
            .in_peft = false,
            .starts_empty = "its procedure selects in the first steps"};
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>&) {
    config.validate();
    return linear_part(BasicSparseDelta<T>(site, "sift"));
  }
  static std::unique_ptr<Procedure<T>> procedure(const Config& config,
                                                 const std::vector<PlacedPart<T>>& parts) {
    return std::make_unique<SIFTProcedure<T>>(config, selection::sparse_deltas(parts));
  }
};

}  // namespace graft::inline v0_1
