#pragma once

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
  explicit BasicSgd(const std::vector<BasicParameterGroup<T>>& groups,
                    const SgdConfig& config = {});
  explicit BasicSgd(std::vector<BasicParameter<T>> parameters, const SgdConfig& config = {});

  Index moments() const override;
  const SgdConfig& config() const { return config_; }

 private:
  void update(const BasicParameter<T>& parameter, BasicParameterState<T>& state,
              const typename BasicOptimizer<T>::Settings& settings) override;

  SgdConfig config_;
};

using Sgd = BasicSgd<float>;

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/optim/impl/sgd_impl.hpp"
#endif
