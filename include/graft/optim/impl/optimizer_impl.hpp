#pragma once

#include <algorithm>
#include <utility>

#include "graft/optim/optimizer.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicOptimizer<T>::~BasicOptimizer() = default;

template <std::floating_point T>
void BasicOptimizer<T>::step(double gradient_scale) {
  if (before_step) before_step();
  for (auto& entry : entries_) {
    const auto& p = entry.parameter;
    if (!p.trainable() || !p.grad()) continue;
    if (p.grad().size() != p.size())
      throw ShapeError(concat("optimizer: gradient ", p.grad().shape().text(), " for parameter ",
                              p.shape().text()));
    auto& state = entry.state;
    if (is_stale(entry)) state = {};
    ++state.steps;
    update(p, state, {learning_rate_ * entry.ratio, entry.weight_decay, gradient_scale});
  }
}

template <std::floating_point T>
void BasicOptimizer<T>::zero_grad() {
  for (auto& entry : entries_) entry.parameter.zero_grad();
}

template <std::floating_point T>
std::vector<BasicParameter<T>> BasicOptimizer<T>::parameters() const {
  std::vector<BasicParameter<T>> list;
  for (const auto& entry : entries_) list.push_back(entry.parameter);
  return list;
}

template <std::floating_point T>
const BasicParameterState<T>& BasicOptimizer<T>::state(Index i) const {
  static const BasicParameterState<T> fresh;
  const auto& entry = entries_.at(static_cast<std::size_t>(i));
  return is_stale(entry) ? fresh : entry.state;
}

template <std::floating_point T>
void BasicOptimizer<T>::set_state(Index i, BasicParameterState<T> state) {
  auto& entry = entries_.at(static_cast<std::size_t>(i));
  if (!state.moments.empty() && static_cast<Index>(state.moments.size()) != moments())
    throw ShapeError(
        concat("optimizer state: ", state.moments.size(), " moments, expected ", moments()));
  for (const auto& moment : state.moments)
    if (moment.size() != entry.parameter.size())
      throw ShapeError(concat("optimizer state: moment ", moment.shape().text(), " for parameter ",
                              entry.parameter.shape().text()));
  entry.state = std::move(state);
}

template <std::floating_point T>
void BasicOptimizer<T>::reset_state(const BasicParameter<T>& parameter) {
  for (auto& entry : entries_)
    if (entry.parameter == parameter) entry.state = {};
}

template <std::floating_point T>
BasicOptimizer<T>::BasicOptimizer(const std::vector<BasicParameterGroup<T>>& groups,
                                  double learning_rate, double weight_decay)
    : learning_rate_(learning_rate) {
  if (!(learning_rate >= 0)) throw ValueError(concat("optimizer: learning rate ", learning_rate));
  for (const auto& group : groups)
    for (const auto& parameter : group.parameters) {
      if (!parameter) throw ValueError("optimizer: an empty parameter");
      const bool known = std::any_of(entries_.begin(), entries_.end(),
                                     [&](const auto& e) { return e.parameter == parameter; });
      if (!known)
        entries_.push_back(
            {parameter, group.learning_rate_ratio, group.weight_decay.value_or(weight_decay), {}});
    }
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
template class BasicOptimizer<float>;
template class BasicOptimizer<double>;
#endif

}  // namespace graft::inline v0_1
