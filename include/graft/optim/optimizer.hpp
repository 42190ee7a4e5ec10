#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
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

  virtual ~BasicOptimizer();
  BasicOptimizer(const BasicOptimizer&) = delete;
  BasicOptimizer& operator=(const BasicOptimizer&) = delete;

  /// Called at the beginning of every step: what changes gradients together (a preconditioner).
  std::function<void()> before_step;
  /// One step. Gradients are multiplied by `gradient_scale` first (clipping, accumulation). A
  /// parameter without a gradient, or one that is not trainable now, stays as it is. A parameter
  /// whose number of elements changed starts with a fresh state.
  void step(double gradient_scale = 1);
  /// Drops all gradients.
  void zero_grad();

  double learning_rate() const { return learning_rate_; }
  /// For schedules: call it before each step.
  void set_learning_rate(double value) { learning_rate_ = value; }

  std::vector<BasicParameter<T>> parameters() const;
  /// Number of parameters, the states of which `state` and `set_state` count in the order in which
  /// they were given.
  Index size() const { return static_cast<Index>(entries_.size()); }
  const BasicParameterState<T>& state(Index i) const;
  /// @throws ShapeError if a moment has another number of elements than the parameter, or their
  /// number is not the optimiser's.
  void set_state(Index i, BasicParameterState<T> state);
  /// Forgets what it remembers of a parameter, for methods that restart it.
  void reset_state(const BasicParameter<T>& parameter);
  /// Number of moments a parameter has after its first step.
  virtual Index moments() const = 0;

 protected:
  struct Settings {
    double learning_rate;
    double weight_decay;
    double gradient_scale;
  };

  BasicOptimizer(const std::vector<BasicParameterGroup<T>>& groups, double learning_rate,
                 double weight_decay);
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

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/optim/impl/optimizer_impl.hpp"
#endif
