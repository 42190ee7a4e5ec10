#pragma once

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "graft/optim/optimizer.hpp"

namespace graft::inline v0_1 {

struct ServerAdamConfig {
  double learning_rate = 0.1;
  double beta1 = 0.9;
  double beta2 = 0.99;
  double eps = 1e-3;
  std::string rule = "adam";  ///< of the second moment: adam, yogi, adagrad
};

/// The adaptive optimisers of federated servers; g is the pseudo-gradient θ_old − θ_average:
///
///     m ← β₁ m + (1 − β₁) g
///     adam:     v ← β₂ v + (1 − β₂) g²
///     yogi:     v ← v − (1 − β₂) g² sign(v − g²)
///     adagrad:  v ← v + g²
///     θ ← θ − η m / (√v + ε)
///
/// No bias correction; m and v begin at zero (the paper starts v at ε² at least). Memory: 2
/// elements a trained element. Source: Reddi et al. 2021, arXiv:2003.00295, algorithm 2.
template <std::floating_point T>
class BasicServerAdam final : public BasicOptimizer<T> {
 public:
  /// @throws ValueError for a setting outside of its range.
  explicit BasicServerAdam(std::vector<BasicParameter<T>> parameters, ServerAdamConfig config = {})
      : BasicOptimizer<T>({{std::move(parameters), 1, {}}}, config.learning_rate, 0),
        config_(std::move(config)) {
    if (!(config_.beta1 >= 0 && config_.beta1 < 1 && config_.beta2 >= 0 && config_.beta2 < 1) ||
        !(config_.eps > 0))
      throw ValueError(concat("server optimiser: betas ", config_.beta1, " and ", config_.beta2,
                              ", eps ", config_.eps));
    if (config_.rule != "adam" && config_.rule != "yogi" && config_.rule != "adagrad")
      throw ValueError(
          concat("server optimiser: rule '", config_.rule, "', expected adam, yogi or adagrad"));
  }
  Index moments() const override { return 2; }
  const ServerAdamConfig& config() const { return config_; }

 private:
  void update(const BasicParameter<T>& parameter, BasicParameterState<T>& state,
              const typename BasicOptimizer<T>::Settings& settings) override {
    const auto& value = parameter.value();
    if (state.moments.empty())
      state.moments = {BasicTensor<T>::zeros(value.shape()), BasicTensor<T>::zeros(value.shape())};
    for (Index i = 0; i < value.size(); ++i) {
      const double g = settings.gradient_scale * static_cast<double>(parameter.grad()[i]),
                   old = static_cast<double>(state.moments[1][i]), square = g * g;
      const double m =
          config_.beta1 * static_cast<double>(state.moments[0][i]) + (1 - config_.beta1) * g;
      double v = old + square;
      if (config_.rule == "adam") v = config_.beta2 * old + (1 - config_.beta2) * square;
      if (config_.rule == "yogi")
        v = old - (1 - config_.beta2) * square * ((old > square) - (old < square));
      state.moments[0][i] = static_cast<T>(m);
      state.moments[1][i] = static_cast<T>(v);
      value[i] -= static_cast<T>(settings.learning_rate * m / (std::sqrt(v) + config_.eps));
    }
  }

  ServerAdamConfig config_;
};

using ServerAdam = BasicServerAdam<float>;

}  // namespace graft::inline v0_1
