#pragma once

#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "graft/base/error.hpp"
#include "graft/base/order.hpp"
#include "graft/base/rng.hpp"
#include "graft/base/splitmix.hpp"
#include "graft/config.hpp"

namespace graft::inline v0_1 {

/// How dispensable the layers of a model are, learned from nothing but losses (a bandit):
///
///     s_i ← s_i + η Σ_{c: i ∈ S_c} (r_c − r̄) p_i (1 − p_i),   p = σ(s),  r_c = exp(−ℓ_c)
///
/// ℓ_c: the loss without the layers of the set S_c, r̄: the mean of the rewards. Scores begin at 0;
/// p is that from before the update. Sources: Yao et al. 2024 (arXiv:2410.11772), algorithm 1; Wu
/// et al. 2024 (arXiv:2309.01479), equations 7 to 9.
class LayerScores {
 public:
  explicit LayerScores(Index layers) : scores_(static_cast<std::size_t>(layers), 0.0) {}

  Index layers() const { return static_cast<Index>(scores_.size()); }
  const std::vector<double>& scores() const { return scores_; }
  /// @throws ShapeError for another number of layers
  void set_scores(std::vector<double> scores) {
    if (scores.size() != scores_.size())
      throw ShapeError(concat("layer scores: ", scores.size(), " scores, expected ", layers()));
    scores_ = std::move(scores);
  }
  /// σ(s): weights by which layers are left out.
  std::vector<double> dispensable() const { return sigmoid(1); }
  /// σ(−s): weights by which layers are kept or trained.
  std::vector<double> needed() const { return sigmoid(-1); }

  /// @throws ShapeError if the losses are not as many as the sets; ValueError for a layer that does
  /// not exist
  void update(const std::vector<std::vector<Index>>& sets, const std::vector<double>& losses,
              double rate);
  /// The layers with the largest scores, in order of their numbers; of equal ones the first.
  std::vector<Index> most_dispensable(Index count) const;
  /// Different numbers by their weights, one after the other without putting back; sorted. They
  /// follow from the seed and `draw` alone.
  static std::vector<Index> sample(std::vector<double> weights, Index count, std::uint64_t seed,
                                   std::uint64_t draw);

 private:
  std::vector<double> sigmoid(double sign) const {
    std::vector<double> p;
    for (const double s : scores_) p.push_back(1 / (1 + std::exp(-sign * s)));
    return p;
  }
  std::vector<double> scores_;
};

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/adapters/impl/layer_scores_impl.hpp"
#endif
