#pragma once

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
                      const AdamWConfig& config = {});
  explicit BasicAdamW(std::vector<BasicParameter<T>> parameters, const AdamWConfig& config = {});

  Index moments() const override;
  const AdamWConfig& config() const { return config_; }

 private:
  void update(const BasicParameter<T>& parameter, BasicParameterState<T>& state,
              const typename BasicOptimizer<T>::Settings& settings) override;

  AdamWConfig config_;
};

using AdamW = BasicAdamW<float>;

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/optim/impl/adamw_impl.hpp"
#endif
