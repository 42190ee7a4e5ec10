#pragma once

#include <algorithm>
#include <numeric>

#include "graft/adapters/layer_scores.hpp"

namespace graft::inline v0_1 {

GRAFT_KERNEL void LayerScores::update(const std::vector<std::vector<Index>>& sets,
                                      const std::vector<double>& losses, double rate) {
  if (sets.size() != losses.size())
    throw ShapeError(concat("layer scores: ", losses.size(), " losses for ", sets.size(), " sets"));
  if (sets.empty()) return;
  std::vector<double> rewards;
  for (const double loss : losses) rewards.push_back(std::exp(-loss));
  const double mean =
      std::accumulate(rewards.begin(), rewards.end(), 0.0) / static_cast<double>(rewards.size());
  const auto p = dispensable();
  for (std::size_t c = 0; c < sets.size(); ++c)
    for (const Index layer : sets[c]) {
      if (layer < 0 || layer >= layers())
        throw ValueError(concat("layer scores: layer ", layer, " of ", layers()));
      const auto i = static_cast<std::size_t>(layer);
      scores_[i] += rate * (rewards[c] - mean) * p[i] * (1 - p[i]);
    }
}

GRAFT_KERNEL std::vector<Index> LayerScores::most_dispensable(Index count) const {
  std::vector<Index> order = largest_first(scores_);
  order.resize(static_cast<std::size_t>(std::clamp<Index>(count, 0, layers())));
  std::sort(order.begin(), order.end());
  return order;
}

GRAFT_KERNEL std::vector<Index> LayerScores::sample(std::vector<double> weights, Index count,
                                                    std::uint64_t seed, std::uint64_t draw) {
  TorchGenerator generator(splitmix64(seed * kSplitMixStep + draw));
  std::vector<Index> chosen;
  count = std::min<Index>(count, static_cast<Index>(weights.size()));
  while (static_cast<Index>(chosen.size()) < count) {
    const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
    double at = generator.uniform() * total;
    std::size_t pick = weights.size();
    for (std::size_t i = 0; i < weights.size(); ++i) {
      if (weights[i] <= 0) continue;
      pick = i;
      if ((at -= weights[i]) < 0) break;
    }
    if (pick == weights.size()) break;
    chosen.push_back(static_cast<Index>(pick));
    weights[pick] = 0;
  }
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

}  // namespace graft::inline v0_1
