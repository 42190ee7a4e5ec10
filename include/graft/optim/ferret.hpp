#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "graft/base/splitmix.hpp"
#include "graft/config.hpp"
#include "graft/optim/seeded_directions.hpp"

namespace graft::inline v0_1 {

struct FerretConfig {
  Index num_seeds = 4096;    ///< K
  double momentum = 0.9;     ///< of the server's pool
  double server_lr = 10;     ///< at the first round; annealed to 0 (`ferret_rate`)
  double clip = 10;          ///< largest norm of what one seed moves a group by
  bool unbiased = false;     ///< coordinates times 3, so that the expectation is the update
  double group_share = 0.9;  ///< size of a group beside the median size of the tensors

  static constexpr const char* kPeftType = "FERRET";

  template <class Visitor>
  void fields(Visitor& v) {
    v("num_seeds", num_seeds);
    v("momentum", momentum);
    v("server_lr", server_lr);
    v("clip", clip);
    v("unbiased", unbiased);
    v("group_share", group_share);
  }
  /// @throws ValueError for what no round can be made with.
  void validate() const {
    if (num_seeds < 1 || !(momentum >= 0) || !(server_lr >= 0) || !(clip > 0) || !(group_share > 0))
      throw ValueError(concat("Ferret: num_seeds ", num_seeds, ", momentum ", momentum,
                              ", server_lr ", server_lr, ", clip ", clip, ", group_share ",
                              group_share));
  }
};

/// Numbers of tensors that make one group each, in their order: a group ends before the tensor that
/// would make it larger than share · median of the sizes.
GRAFT_KERNEL std::vector<std::vector<Index>> ferret_groups(std::span<const Index> sizes,
                                                           double share);

/// Number of seeds of each group, max(⌊‖Δ_g‖ / max ‖Δ‖ · K⌋, 2) and at most K.
GRAFT_KERNEL std::vector<Index> ferret_seed_counts(std::span<const double> norms, Index num_seeds);

/// η of a round, on the line from `first` to 0 after the last.
inline double ferret_rate(double first, Index round, Index rounds) {
  return first * (1 - static_cast<double>(round) / static_cast<double>(std::max<Index>(1, rounds)));
}

/// Federated training with first-order updates that are sent as coordinates along directions of
/// shared seeds:
///
///     client: Δ_g = w_old − w_new after local steps of any optimiser; n_g seeds are drawn;
///             c_s = ⟨Δ_g, v_s⟩ d_g / n_g (unbiased: times 3), 0 for the other seeds
///     server: P_s ← μ P_s + Σ_k p_k c_s of client k,  w_g ← w_g − η Σ_s clip(P_s v_s)
///
/// g: groups of neighbouring tensors with d_g elements (`ferret_groups`), n_g as in
/// `ferret_seed_counts`; v_s: N(0, 1) within ±1/√d_g, whose variance is about 1 / (3 d_g), so the
/// published coordinates rebuild a third of the update. clip: to the norm `clip`. Everybody who has
/// the pool makes the same step. Sent: Σ n_g numbers. Source: Shu et al. 2024, arXiv:2409.06277.
template <std::floating_point T>
class BasicFerret {
 public:
  /// Direction of a seed for a group with `size` elements.
  using Direction = std::function<std::vector<double>(Index group, Index seed, Index size)>;
  /// For each group a number for each seed.
  using Coordinates = std::vector<std::vector<double>>;
  /// For each group its seeds in an order; the first n_g are used.
  using Orders = std::vector<std::vector<Index>>;

  explicit BasicFerret(std::vector<BasicParameter<T>> parameters, FerretConfig config = {},
                       Direction direction = {})
      : parameters_(std::move(parameters)),
        config_(config),
        direction_(direction ? std::move(direction) : Direction(own_direction)) {
    config_.validate();
    std::vector<Index> sizes;
    for (const auto& p : parameters_) sizes.push_back(p.size());
    groups_ = ferret_groups(sizes, config_.group_share);
    for (const auto& group : groups_) {
      Index size = 0;
      for (const Index i : group) size += sizes[static_cast<std::size_t>(i)];
      sizes_.push_back(size);
      pool_.emplace_back(static_cast<std::size_t>(config_.num_seeds), 0.0);
    }
  }
  const std::vector<std::vector<Index>>& groups() const { return groups_; }
  /// P, which a new client downloads with the model.
  const Coordinates& pool() const { return pool_; }
  /// @throws ShapeError unless it has a number for each seed of each group
  void set_pool(Coordinates pool) {
    const bool fits = pool.size() == pool_.size() &&
                      std::all_of(pool.begin(), pool.end(), [&](const auto& of_group) {
                        return std::ssize(of_group) == config_.num_seeds;
                      });
    if (!fits)
      throw ShapeError(concat("Ferret: a pool of ", pool.size(), " groups, expected ", pool_.size(),
                              " of ", config_.num_seeds, " seeds"));
    pool_ = std::move(pool);
  }

  /// Random orders for `coordinates`.
  Orders draw_orders(TorchGenerator& generator) const {
    Orders orders;
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      const auto order = generator.randperm(config_.num_seeds);
      orders.emplace_back(order.begin(), order.end());
    }
    return orders;
  }
  /// What a client sends after it has moved the parameters away from `old` (`flat_values`).
  Coordinates coordinates(std::span<const double> old, const Orders& orders) const {
    auto update = flat_values(parameters_);
    if (old.size() != update.size() || orders.size() != groups_.size())
      throw ShapeError(concat("Ferret: ", old.size(), " old values for ", update.size(), ", ",
                              orders.size(), " orders for ", groups_.size(), " groups"));
    std::vector<double> norms;
    const double* next = update.data();
    for (std::size_t i = 0; i < update.size(); ++i) update[i] = old[i] - update[i];
    for (const Index size : sizes_) {
      norms.push_back(std::sqrt(std::inner_product(next, next + size, next, 0.0)));
      next += size;
    }
    const auto counts = ferret_seed_counts(norms, config_.num_seeds);
    Coordinates result;
    next = update.data();
    for (std::size_t g = 0; g < groups_.size(); ++g) {
      result.emplace_back(static_cast<std::size_t>(config_.num_seeds), 0.0);
      const double factor = (config_.unbiased ? 3.0 : 1.0) * static_cast<double>(sizes_[g]) /
                            static_cast<double>(counts[g]);
      for (Index i = 0; i < counts[g] && norms[g] > 0; ++i) {
        const Index seed = orders[g].at(static_cast<std::size_t>(i));
        const auto v = direction_(static_cast<Index>(g), seed, sizes_[g]);
        result[g].at(static_cast<std::size_t>(seed)) =
            factor * std::inner_product(v.begin(), v.end(), next, 0.0);
      }
      next += sizes_[g];
    }
    return result;
  }
  /// The server's round: takes the clients' coordinates into the pool and makes the step from the
  /// parameters as they are. @throws ValueError for another number of shares
  void aggregate(const std::vector<Coordinates>& clients, std::span<const double> shares,
                 double rate) {
    if (clients.size() != shares.size())
      throw ValueError(
          concat("Ferret: ", shares.size(), " shares for ", clients.size(), " clients"));
    for (std::size_t g = 0; g < pool_.size(); ++g)
      for (std::size_t s = 0; s < pool_[g].size(); ++s) {
        pool_[g][s] *= config_.momentum;
        for (std::size_t k = 0; k < clients.size(); ++k)
          pool_[g][s] += shares[k] * clients[k].at(g).at(s);
      }
    step(rate);
  }
  /// w_g ← w_g − η Σ_s clip(P_s v_s), as clients that have the pool do it too.
  void step(double rate) const {
    auto w = flat_values(parameters_);
    double* next = w.data();
    for (std::size_t g = 0; g < pool_.size(); ++g) {
      for (std::size_t s = 0; s < pool_[g].size(); ++s) {
        if (pool_[g][s] == 0) continue;
        const auto v = direction_(static_cast<Index>(g), static_cast<Index>(s), sizes_[g]);
        const double norm = std::abs(pool_[g][s]) *
                            std::sqrt(std::inner_product(v.begin(), v.end(), v.begin(), 0.0));
        const double factor = rate * pool_[g][s] * std::min(1.0, config_.clip / norm);
        for (std::size_t i = 0; i < v.size(); ++i) next[i] -= factor * v[i];
      }
      next += sizes_[g];
    }
    set_flat_values(parameters_, w);
  }
  const FerretConfig& config() const { return config_; }

 private:
  static std::vector<double> own_direction(Index group, Index seed, Index size) {
    return truncated_normal_direction(splitmix64(static_cast<std::uint64_t>(seed)) +
                                          kSplitMixStep * static_cast<std::uint64_t>(group + 1),
                                      size);
  }
  std::vector<BasicParameter<T>> parameters_;
  FerretConfig config_;
  Direction direction_;
  std::vector<std::vector<Index>> groups_;
  std::vector<Index> sizes_;
  Coordinates pool_;
};

using Ferret = BasicFerret<float>;

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/optim/impl/ferret_impl.hpp"
#endif
