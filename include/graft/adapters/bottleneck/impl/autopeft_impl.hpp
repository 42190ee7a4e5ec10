#pragma once

#include <algorithm>

#include "graft/adapters/bottleneck/autopeft.hpp"

namespace graft::inline v0_1::autopeft {

GRAFT_KERNEL Index parameters(const AutoPEFTConfig& config, Index blocks, Index hidden_size) {
  const Index d = hidden_size;
  const auto adapter = [d](Index r) { return r > 0 ? 2 * d * r + r + d : 0; };
  Index on = 0;
  for (Index l = 0; l < blocks; ++l) on += config.has(l) ? 1 : 0;
  return on * (adapter(config.serial) + adapter(config.parallel) + 2 * d * config.prefix);
}

GRAFT_KERNEL std::vector<char> pareto(const std::vector<double>& scores,
                                      const std::vector<Index>& parameters) {
  if (scores.size() != parameters.size())
    throw ShapeError(concat("AutoPEFT: ", scores.size(), " scores for ", parameters.size(),
                            " numbers of parameters"));
  std::vector<char> front(scores.size(), 1);
  for (std::size_t i = 0; i < scores.size(); ++i)
    for (std::size_t j = 0; j < scores.size(); ++j)
      if (scores[j] >= scores[i] && parameters[j] <= parameters[i] &&
          (scores[j] > scores[i] || parameters[j] < parameters[i]))
        front[i] = 0;
  return front;
}

}  // namespace graft::inline v0_1::autopeft

namespace graft::inline v0_1 {

GRAFT_KERNEL void AutoPEFTConfig::validate() const {
  if (serial < 0 || parallel < 0 || prefix < 0)
    throw ValueError(concat("AutoPEFT: serial ", serial, ", parallel ", parallel, ", prefix ",
                            prefix, ", expected at least 0"));
  for (const Index gene : layers)
    if (gene != 0 && gene != 1)
      throw ValueError(concat("AutoPEFT: a gene ", gene, " of layers, expected 0 or 1"));
  detail::require_activation("AutoPEFT", non_linearity);
}

}  // namespace graft::inline v0_1

namespace graft::inline v0_1::autopeft {

GRAFT_KERNEL Search::Search(AutoPEFTConfig base, Index blocks, Index hidden_size, Index initial,
                            std::uint64_t seed)
    : base_(std::move(base)),
      blocks_(blocks),
      hidden_size_(hidden_size),
      initial_(initial),
      generator_(seed) {
  if (blocks < 1 || base_.sizes.empty())
    throw ValueError("AutoPEFT: a search needs blocks and sizes");
}

GRAFT_KERNEL AutoPEFTConfig Search::next() {
  auto config = base_;
  const auto front = best();
  if (static_cast<Index>(seen_.size()) < initial_ || front.empty()) {
    config.layers.assign(static_cast<std::size_t>(blocks_), 0);
    for (Index& gene : config.layers) gene = generator_.uniform() < 0.5 ? 0 : 1;
    for (auto* size : {&config.serial, &config.parallel, &config.prefix})
      *size = base_.sizes[pick(base_.sizes.size())];
    return config;
  }
  config = seen_[front[pick(front.size())]];
  // One gene changes for certain, others by chance.
  const std::size_t genes = config.layers.size() + 3, certain = pick(genes);
  for (std::size_t g = 0; g < genes; ++g) {
    if (g != certain && generator_.uniform() >= 1 / static_cast<double>(genes)) continue;
    if (g < config.layers.size()) {
      config.layers[g] = 1 - config.layers[g];
      continue;
    }
    Index& size = g == genes - 3 ? config.serial : g == genes - 2 ? config.parallel : config.prefix;
    const auto at = std::find(base_.sizes.begin(), base_.sizes.end(), size);
    const auto step = generator_.uniform() < 0.5 ? -1 : 1;
    const auto last = static_cast<std::ptrdiff_t>(base_.sizes.size()) - 1;
    const auto now = at == base_.sizes.end() ? 0 : at - base_.sizes.begin();
    size = base_.sizes[static_cast<std::size_t>(std::clamp<std::ptrdiff_t>(now + step, 0, last))];
  }
  return config;
}

GRAFT_KERNEL std::vector<std::size_t> Search::best() const {
  std::vector<std::size_t> list;
  const auto front = pareto(scores_, counts_);
  for (std::size_t i = 0; i < front.size(); ++i)
    if (front[i] != 0) list.push_back(i);
  return list;
}

}  // namespace graft::inline v0_1::autopeft
