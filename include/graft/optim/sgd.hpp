#pragma once

#include <utility>
#include <vector>

#include "graft/kernels/optimizer.hpp"
#include "graft/optim/optimizer.hpp"

namespace graft::inline v0_1 {

struct SgdConfig {
  double learning_rate = 1e-2;
  double momentum = 0;
  double dampening = 0;
  double weight_decay = 0;
  bool nesterov = false;
};

/// Stochastic gradient descent, as torch.optim.SGD does it:
///
///     g ← g + λ θ
///     b ← μ b + (1 − τ) g,   at the first step b = g
///     θ ← θ − η b,           with Nesterov θ − η (g + μ b)
///
/// Without momentum μ, θ ← θ − η g. Memory: 1 element a trained element with momentum, else none.
template <std::floating_point T>
class BasicSgd final : public BasicOptimizer<T> {
 public:
  /// @throws ValueError for a setting outside of its range.
  explicit BasicSgd(const std::vector<BasicParameterGroup<T>>& groups, const SgdConfig& config = {})
      : BasicOptimizer<T>(groups, config.learning_rate, config.weight_decay), config_(config) {
    if (!(config.momentum >= 0 && config.momentum < 1))
      throw ValueError(concat("SGD: momentum ", config.momentum));
    if (config.nesterov && (config.momentum == 0 || config.dampening != 0))
      throw ValueError("SGD: Nesterov needs momentum and no dampening");
  }
  explicit BasicSgd(std::vector<BasicParameter<T>> parameters, const SgdConfig& config = {})
      : BasicSgd(std::vector<BasicParameterGroup<T>>{{std::move(parameters), 1, {}}}, config) {}

  Index moments() const override { return config_.momentum > 0 ? 1 : 0; }
  const SgdConfig& config() const { return config_; }

 private:
  void update(const BasicParameter<T>& parameter, BasicParameterState<T>& state,
              const typename BasicOptimizer<T>::Settings& settings) override {
    const auto& value = parameter.value();
    const bool first = state.moments.empty();
    if (config_.momentum > 0 && first) state.moments = {BasicTensor<T>::zeros(value.shape())};
    kernels::sgd_step(value.data(), parameter.grad().data(),
                      config_.momentum > 0 ? state.moments[0].data() : nullptr, value.size(),
                      settings.learning_rate, config_.momentum, config_.dampening,
                      settings.weight_decay, config_.nesterov, first, settings.gradient_scale);
  }

  SgdConfig config_;
};

using Sgd = BasicSgd<float>;

}  // namespace graft::inline v0_1
