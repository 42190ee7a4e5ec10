#pragma once

#include <algorithm>
#include <span>
#include <utility>
#include <vector>

#include "graft/config.hpp"
#include "graft/optim/seeded_directions.hpp"

namespace graft::inline v0_1 {

struct FedKSeedConfig {
  Index num_seeds = 4096;   ///< K
  Index local_steps = 200;  ///< of a client in a round
  double eps = 5e-4;
  double learning_rate = 3e-7;
  double clip = 0;  ///< > 0: |g| at most this

  static constexpr const char* kPeftType = "FEDKSEED";

  template <class Visitor>
  void fields(Visitor& v) {
    v("num_seeds", num_seeds);
    v("local_steps", local_steps);
    v("eps", eps);
    v("learning_rate", learning_rate);
    v("clip", clip);
  }
  /// @throws ValueError for what no step can be made with.
  void validate() const {
    if (num_seeds < 1 || local_steps < 0 || !(eps > 0) || !(learning_rate >= 0) || !(clip >= 0))
      throw ValueError(concat("FedKSeed: num_seeds ", num_seeds, ", local_steps ", local_steps,
                              ", eps ", eps, ", learning_rate ", learning_rate, ", clip ", clip));
  }
};

/// One local step as a client sends it: the number of its candidate seed and g.
struct FedKSeedRecord {
  Index candidate = 0;
  double gradient = 0;
};

/// Federated training by values of the loss along K candidate directions. The state of the whole
/// model is its start and K numbers:
///
///     w = w⁰ − η Σ_j a_j z_j
///     client: j drawn, g = (L(w + ε z_j) − L(w − ε z_j)) / 2ε, w ← w − η g z_j, (j, g) is sent
///     server: a_j ← a_j + Σ_k p_k Σ_{(j, g) of k} g
///
/// w⁰: the parameters at construction. A local step sends two numbers, a round downloads K,
/// whatever the size of the model. Source: Qin et al. 2024, arXiv:2312.06353.
template <std::floating_point T>
class BasicFedKSeed {
 public:
  /// @throws ValueError for a setting outside of its range.
  explicit BasicFedKSeed(std::vector<BasicParameter<T>> parameters, FedKSeedConfig config = {},
                         SeededDirection direction = normal_direction)
      : parameters_(std::move(parameters)),
        config_(config),
        direction_(std::move(direction)),
        start_(flat_values(parameters_)) {
    config_.validate();
  }
  /// Sets the parameters to what the accumulators say. @throws ShapeError unless there are K
  void rebuild(std::span<const double> accumulator) const {
    if (std::ssize(accumulator) != config_.num_seeds)
      throw ShapeError(
          concat("FedKSeed: ", accumulator.size(), " accumulators, expected ", config_.num_seeds));
    auto w = start_;
    for (std::size_t j = 0; j < accumulator.size(); ++j)
      if (accumulator[j] != 0)
        detail::move_along(w, -config_.learning_rate * accumulator[j],
                           direction_(j, std::ssize(start_)));
    set_flat_values(parameters_, w);
  }
  /// One step of a client along a candidate; `loss()` at the parameters as they are.
  /// @throws ValueError if there is no such candidate
  template <class Loss>
  FedKSeedRecord local_step(Loss&& loss, Index candidate) const {
    if (candidate < 0 || candidate >= config_.num_seeds)
      throw ValueError(
          concat("FedKSeed: candidate ", candidate, " of ", config_.num_seeds, " seeds"));
    const auto z = direction_(static_cast<std::uint64_t>(candidate), std::ssize(start_));
    double g = detail::projected_gradient(parameters_, z, config_.eps, loss);
    if (config_.clip > 0) g = std::clamp(g, -config_.clip, config_.clip);
    auto w = flat_values(parameters_);
    detail::move_along(w, -config_.learning_rate * g, z);
    set_flat_values(parameters_, w);
    return {candidate, g};
  }
  /// `local_steps` steps along candidates drawn uniformly, or with the given probabilities.
  /// `loss(step)` is called twice a step.
  template <class Loss>
  std::vector<FedKSeedRecord> local_round(Loss&& loss, TorchGenerator& generator,
                                          std::span<const double> probability = {}) const {
    if (!probability.empty() && std::ssize(probability) != config_.num_seeds)
      throw ShapeError(concat("FedKSeed: ", probability.size(), " probabilities for ",
                              config_.num_seeds, " seeds"));
    std::vector<FedKSeedRecord> records;
    for (Index step = 0; step < config_.local_steps; ++step) {
      double left = generator.uniform();
      Index candidate = static_cast<Index>(left * static_cast<double>(config_.num_seeds));
      if (!probability.empty()) {
        candidate = 0;
        while (candidate + 1 < config_.num_seeds &&
               (left -= probability[static_cast<std::size_t>(candidate)]) >= 0)
          ++candidate;
      }
      records.push_back(local_step([&] { return loss(step); }, candidate));
    }
    return records;
  }
  const FedKSeedConfig& config() const { return config_; }

 private:
  std::vector<BasicParameter<T>> parameters_;
  FedKSeedConfig config_;
  SeededDirection direction_;
  std::vector<double> start_;
};

using FedKSeed = BasicFedKSeed<float>;

/// The server's sum of what clients sent, p_k their shares of the data.
GRAFT_KERNEL void accumulate_records(std::vector<double>& accumulator,
                                     const std::vector<std::vector<FedKSeedRecord>>& clients,
                                     std::span<const double> shares);
/// Mean |g| of each candidate over all records; 0 for those that nobody tried.
GRAFT_KERNEL std::vector<double> mean_magnitudes(
    const std::vector<std::vector<FedKSeedRecord>>& clients, Index num_seeds);
/// FedKSeed-Pro: probabilities of the candidates, the softmax of their magnitudes stretched to [0,
/// 1]; uniform if all are equal.
GRAFT_KERNEL std::vector<double> candidate_probabilities(std::span<const double> magnitudes);

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/optim/impl/fed_kseed_impl.hpp"
#endif
