#pragma once

#include <algorithm>
#include <concepts>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "graft/autograd/parameter.hpp"
#include "graft/base/error.hpp"

namespace graft::inline v0_1 {

/// Parameters that an optimiser treats alike.
template <std::floating_point T>
struct BasicParameterGroup {
  std::vector<BasicParameter<T>> parameters;
  double learning_rate_ratio = 1;      ///< times the optimiser's learning rate
  std::optional<double> weight_decay;  ///< in place of the optimiser's
};

/// What an optimiser remembers of one parameter, as files hold it. Moments are empty where the
/// parameter never had a gradient.
template <std::floating_point T>
struct BasicParameterState {
  std::int64_t steps = 0;
  std::vector<BasicTensor<T>> moments;  ///< AdamW: m and v; SGD: the momentum buffer or nothing
};

/// Moves parameters against their gradients. Knows parameters by their handles only; a parameter
/// that is given twice counts once, with its first group.
template <std::floating_point T>
class BasicOptimizer {
 public:
  using Scalar = T;

  virtual ~BasicOptimizer() = default;
  BasicOptimizer(const BasicOptimizer&) = delete;
  BasicOptimizer& operator=(const BasicOptimizer&) = delete;

  /// Called at the beginning of every step: what changes gradients together (a preconditioner).
  std::function<void()> before_step;
  /// One step. Gradients are multiplied by `gradient_scale` first (clipping, accumulation). A
  /// parameter without a gradient, or one that is not trainable now, stays as it is. A parameter
  /// whose number of elements changed starts with a fresh state.
  void step(double gradient_scale = 1) {
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
  /// Drops all gradients.
  void zero_grad() {
    for (auto& entry : entries_) entry.parameter.zero_grad();
  }

  double learning_rate() const { return learning_rate_; }
  /// For schedules: call it before each step.
  void set_learning_rate(double value) { learning_rate_ = value; }

  std::vector<BasicParameter<T>> parameters() const {
    std::vector<BasicParameter<T>> list;
    for (const auto& entry : entries_) list.push_back(entry.parameter);
    return list;
  }
  /// Number of parameters, the states of which `state` and `set_state` count in the order in which
  /// they were given.
  Index size() const { return static_cast<Index>(entries_.size()); }
  const BasicParameterState<T>& state(Index i) const {
    static const BasicParameterState<T> fresh;
    const auto& entry = entries_.at(static_cast<std::size_t>(i));
    return is_stale(entry) ? fresh : entry.state;
  }
  /// @throws ShapeError if a moment has another number of elements than the parameter, or their
  /// number is not the optimiser's.
  void set_state(Index i, BasicParameterState<T> state) {
    auto& entry = entries_.at(static_cast<std::size_t>(i));
    if (!state.moments.empty() && static_cast<Index>(state.moments.size()) != moments())
      throw ShapeError(
          concat("optimizer state: ", state.moments.size(), " moments, expected ", moments()));
    for (const auto& moment : state.moments)
      if (moment.size() != entry.parameter.size())
        throw ShapeError(concat("optimizer state: moment ", moment.shape().text(),
                                " for parameter ", entry.parameter.shape().text()));
    entry.state = std::move(state);
  }
  /// Forgets what it remembers of a parameter, for methods that restart it.
  void reset_state(const BasicParameter<T>& parameter) {
    for (auto& entry : entries_)
      if (entry.parameter == parameter) entry.state = {};
  }
  /// Number of moments a parameter has after its first step.
  virtual Index moments() const = 0;

 protected:
  struct Settings {
    double learning_rate;
    double weight_decay;
    double gradient_scale;
  };

  BasicOptimizer(const std::vector<BasicParameterGroup<T>>& groups, double learning_rate,
                 double weight_decay)
      : learning_rate_(learning_rate) {
    if (!(learning_rate >= 0)) throw ValueError(concat("optimizer: learning rate ", learning_rate));
    for (const auto& group : groups)
      for (const auto& parameter : group.parameters) {
        if (!parameter) throw ValueError("optimizer: an empty parameter");
        const bool known = std::any_of(entries_.begin(), entries_.end(),
                                       [&](const auto& e) { return e.parameter == parameter; });
        if (!known)
          entries_.push_back({parameter,
                              group.learning_rate_ratio,
                              group.weight_decay.value_or(weight_decay),
                              {}});
      }
  }
  /// Moves one parameter and its state, whose step count includes this step.
  virtual void update(const BasicParameter<T>& parameter, BasicParameterState<T>& state,
                      const Settings& settings) = 0;

 private:
  struct Entry {
    BasicParameter<T> parameter;
    double ratio;
    double weight_decay;
    BasicParameterState<T> state;
  };
  /// True if the state is that of another number of elements than the parameter has by now.
  static bool is_stale(const Entry& entry) {
    return !entry.state.moments.empty() && entry.state.moments[0].size() != entry.parameter.size();
  }
  std::vector<Entry> entries_;
  double learning_rate_;
};

using ParameterGroup = BasicParameterGroup<float>;
using ParameterState = BasicParameterState<float>;
using Optimizer = BasicOptimizer<float>;

}  // namespace graft::inline v0_1
