#pragma once

#include <cmath>
#include <utility>

#include "graft/optim/adamw.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicAdamW<T>::BasicAdamW(const std::vector<BasicParameterGroup<T>>& groups,
                          const AdamWConfig& config)
    : BasicOptimizer<T>(groups, config.learning_rate, config.weight_decay), config_(config) {
  if (!(config.beta1 >= 0 && config.beta1 < 1 && config.beta2 >= 0 && config.beta2 < 1))
    throw ValueError(
        concat("AdamW: betas ", config.beta1, " and ", config.beta2, ", expected [0, 1)"));
  if (!(config.eps >= 0)) throw ValueError(concat("AdamW: eps ", config.eps));
}

template <std::floating_point T>
BasicAdamW<T>::BasicAdamW(std::vector<BasicParameter<T>> parameters, const AdamWConfig& config)
    : BasicAdamW(std::vector<BasicParameterGroup<T>>{{std::move(parameters), 1, {}}}, config) {}

template <std::floating_point T>
Index BasicAdamW<T>::moments() const {
  return 2;
}

template <std::floating_point T>
void BasicAdamW<T>::update(const BasicParameter<T>& parameter, BasicParameterState<T>& state,
                           const typename BasicOptimizer<T>::Settings& settings) {
  const auto& value = parameter.value();
  if (state.moments.empty())
    state.moments = {BasicTensor<T>::zeros(value.shape()), BasicTensor<T>::zeros(value.shape())};
  const auto t = static_cast<double>(state.steps);
  kernels::adamw_step(value.data(), parameter.grad().data(), state.moments[0].data(),
                      state.moments[1].data(), value.size(), settings.learning_rate, config_.beta1,
                      config_.beta2, config_.eps, settings.weight_decay,
                      1 - std::pow(config_.beta1, t), 1 - std::pow(config_.beta2, t),
                      settings.gradient_scale);
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
template class BasicAdamW<float>;
template class BasicAdamW<double>;
#endif

}  // namespace graft::inline v0_1
