#pragma once

#include <cmath>
#include <utility>
#include <vector>

#include "graft/kernels/optimizer.hpp"
#include "graft/optim/optimizer.hpp"

namespace graft::inline v0_1 {

struct AdamWConfig {
  double learning_rate = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double weight_decay = 0.01;
};

/// Adam with decoupled weight decay, as torch.optim.AdamW does it:
///
///     θ ← θ (1 − η λ)
///     m ← β₁ m + (1 − β₁) g,   v ← β₂ v + (1 − β₂) g²
///     θ ← θ − η / (1 − β₁ᵗ) · m / (√v / √(1 − β₂ᵗ) + ε)
///
/// t counts the steps of each parameter. Memory: 2 elements a trained element.
/// Source: Loshchilov and Hutter 2019, arXiv:1711.05101, algorithm 2 with λ scaled by η as torch
/// has it.
template <std::floating_point T>
class BasicAdamW final : public BasicOptimizer<T> {
 public:
  /// @throws ValueError for a setting outside of its range.
  explicit BasicAdamW(const std::vector<BasicParameterGroup<T>>& groups,
                      const AdamWConfig& config = {})
      : BasicOptimizer<T>(groups, config.learning_rate, config.weight_decay), config_(config) {
    if (!(config.beta1 >= 0 && config.beta1 < 1 && config.beta2 >= 0 && config.beta2 < 1))
      throw ValueError(
          concat("AdamW: betas ", config.beta1, " and ", config.beta2, ", expected [0, 1)"));
    if (!(config.eps >= 0)) throw ValueError(concat("AdamW: eps ", config.eps));
  }
  explicit BasicAdamW(std::vector<BasicParameter<T>> parameters, const AdamWConfig& config = {})
      : BasicAdamW(std::vector<BasicParameterGroup<T>>{{std::move(parameters), 1, {}}}, config) {}

  Index moments() const override { return 2; }
  const AdamWConfig& config() const { return config_; }

 private:
  void update(const BasicParameter<T>& parameter, BasicParameterState<T>& state,
              const typename BasicOptimizer<T>::Settings& settings) override {
    const auto& value = parameter.value();
    if (state.moments.empty())
      state.moments = {BasicTensor<T>::zeros(value.shape()), BasicTensor<T>::zeros(value.shape())};
    const auto t = static_cast<double>(state.steps);
    kernels::adamw_step(value.data(), parameter.grad().data(), state.moments[0].data(),
                        state.moments[1].data(), value.size(), settings.learning_rate,
                        config_.beta1, config_.beta2, config_.eps, settings.weight_decay,
                        1 - std::pow(config_.beta1, t), 1 - std::pow(config_.beta2, t),
                        settings.gradient_scale);
  }

  AdamWConfig config_;
};

using AdamW = BasicAdamW<float>;

}  // namespace graft::inline v0_1
