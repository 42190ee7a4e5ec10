#pragma once

#include <utility>

#include "graft/optim/sgd.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicSgd<T>::BasicSgd(const std::vector<BasicParameterGroup<T>>& groups, const SgdConfig& config)
    : BasicOptimizer<T>(groups, config.learning_rate, config.weight_decay), config_(config) {
  if (!(config.momentum >= 0 && config.momentum < 1))
    throw ValueError(concat("SGD: momentum ", config.momentum));
  if (config.nesterov && (config.momentum == 0 || config.dampening != 0))
    throw ValueError("SGD: Nesterov needs momentum and no dampening");
}

template <std::floating_point T>
BasicSgd<T>::BasicSgd(std::vector<BasicParameter<T>> parameters, const SgdConfig& config)
    : BasicSgd(std::vector<BasicParameterGroup<T>>{{std::move(parameters), 1, {}}}, config) {}

template <std::floating_point T>
Index BasicSgd<T>::moments() const {
  return config_.momentum > 0 ? 1 : 0;
}

template <std::floating_point T>
void BasicSgd<T>::update(const BasicParameter<T>& parameter, BasicParameterState<T>& state,
                         const typename BasicOptimizer<T>::Settings& settings) {
  const auto& value = parameter.value();
  const bool first = state.moments.empty();
  if (config_.momentum > 0 && first) state.moments = {BasicTensor<T>::zeros(value.shape())};
  kernels::sgd_step(value.data(), parameter.grad().data(),
                    config_.momentum > 0 ? state.moments[0].data() : nullptr, value.size(),
                    settings.learning_rate, config_.momentum, config_.dampening,
                    settings.weight_decay, config_.nesterov, first, settings.gradient_scale);
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
template class BasicSgd<float>;
template class BasicSgd<double>;
#endif

}  // namespace graft::inline v0_1
