#pragma once

#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "graft/autograd/parameter.hpp"
#include "graft/base/error.hpp"
#include "graft/base/rng.hpp"
#include "graft/optim/seeded_directions.hpp"

namespace graft::inline v0_1 {

struct SpsaConfig {
  double a = 0.01;  ///< steps a_k = a / (k + o)^alpha, k from 1
  double c = 0.01;  ///< probes c_k = c / k^gamma
  double o = 1;
  double alpha = 0.4;
  double gamma = 0.1;
  double momentum = 0.9;
  Index num_estimates = 5;  ///< directions a step
  bool rademacher = false;  ///< directions of ±1; else ±U[0.5, 1]

  /// @throws ValueError for what no step can be made with.
  void validate() const {
    if (num_estimates < 1 || !(c > 0) || !(a >= 0) || !(o >= 0))
      throw ValueError(
          concat("SPSA: num_estimates ", num_estimates, ", a ", a, ", c ", c, ", o ", o));
  }
};

/// SPSA with gradient correction, a descent by values of the loss alone: ĝ = mean over directions Δ
/// of (L(φ + c_k Δ) − L(φ − c_k Δ)) / (2 c_k) ⊘ Δ, m ← β m + ĝ, φ ← φ − a_k (ĝ + β m), m_0 = 0.
///
/// Two values of the loss a direction; no gradient is computed. Sources: Spall 1992,
/// doi:10.1109/9.119632; Oh et al. 2023, arXiv:2303.14773, equations 4 to 6.
template <std::floating_point T>
class BasicSpsa {
 public:
  BasicSpsa(std::vector<BasicParameter<T>> parameters, SpsaConfig config, std::uint64_t seed = 0)
      : parameters_(std::move(parameters)), config_(config), generator_(seed) {
    config_.validate();
    Index size = 0;
    for (const auto& p : parameters_) size += p.size();
    momentum_.assign(static_cast<std::size_t>(size), 0.0);
  }
  /// One step with directions of its own; `loss()` gives the loss at the parameters as they are.
  /// Returns ĝ over all parameters in order.
  template <class Loss>
  std::vector<double> step(Loss&& loss) {
    std::vector<std::vector<double>> directions(static_cast<std::size_t>(config_.num_estimates));
    for (auto& d : directions) {
      d.resize(momentum_.size());
      for (double& v : d) {
        const double u = generator_.uniform();
        const double size = config_.rademacher ? 1 : 0.5 + 0.5 * generator_.uniform();
        v = u < 0.5 ? -size : size;
      }
    }
    return step(loss, directions);
  }
  /// The same with given directions.
  template <class Loss>
  std::vector<double> step(Loss&& loss, const std::vector<std::vector<double>>& directions) {
    const double k = static_cast<double>(++steps_);
    const double rate = config_.a / std::pow(k + config_.o, config_.alpha),
                 probe = config_.c / std::pow(k, config_.gamma);
    const auto start = flat_values(parameters_);
    std::vector<double> estimate(start.size(), 0.0);
    for (const auto& d : directions) {
      if (d.size() != start.size())
        throw ShapeError(
            concat("SPSA: a direction of ", d.size(), " elements, expected ", start.size()));
      const auto at = [&](double sign) {
        auto moved = start;
        for (std::size_t i = 0; i < d.size(); ++i) moved[i] += sign * probe * d[i];
        set_flat_values(parameters_, moved);
        return static_cast<double>(loss());
      };
      const double up = at(1), slope = (up - at(-1)) / (2 * probe);
      for (std::size_t i = 0; i < d.size(); ++i) estimate[i] += slope / d[i];
    }
    auto next = start;
    for (std::size_t i = 0; i < next.size(); ++i) {
      estimate[i] /= static_cast<double>(directions.size());
      momentum_[i] = config_.momentum * momentum_[i] + estimate[i];
      next[i] -= rate * (estimate[i] + config_.momentum * momentum_[i]);
    }
    set_flat_values(parameters_, next);
    return estimate;
  }

 private:
  std::vector<BasicParameter<T>> parameters_;
  SpsaConfig config_;
  TorchGenerator generator_;
  std::vector<double> momentum_;
  Index steps_ = 0;
};

using Spsa = BasicSpsa<float>;

}  // namespace graft::inline v0_1
