#pragma once

#include <algorithm>
#include <utility>

#include "graft/adapters/selection/noah_search.hpp"

namespace graft::inline v0_1::noah {

GRAFT_KERNEL Index parameters(const Genes& genes, Index hidden_size) {
  if (genes.size() % 3 != 0)
    throw ShapeError(concat("NOAH: ", genes.size(), " genes, expected three a block"));
  const std::size_t blocks = genes.size() / 3;
  const Index d = hidden_size;
  Index count = 0;
  for (std::size_t b = 0; b < blocks; ++b) {
    const Index n = genes[b], r = genes[blocks + b], a = genes[2 * blocks + b];
    count += n * d + 4 * r * d + (a > 0 ? 2 * a * d + a + d : 0);
  }
  return count;
}

GRAFT_KERNEL std::vector<Index> parents(const std::vector<double>& fitness, Index count) {
  std::vector<Index> order = largest_first(fitness);
  order.resize(std::min(order.size(), static_cast<std::size_t>(std::max<Index>(0, count))));
  return order;
}

GRAFT_KERNEL Genes mutate(Genes genes, const std::vector<double>& uniform,
                          const std::vector<Index>& picks, const std::vector<Index>& choices,
                          double probability) {
  if (uniform.size() != genes.size() || picks.size() != genes.size())
    throw ShapeError(concat("NOAH: ", uniform.size(), " draws and ", picks.size(), " picks for ",
                            genes.size(), " genes"));
  for (std::size_t i = 0; i < genes.size(); ++i) {
    if (!(uniform[i] < probability)) continue;
    if (picks[i] < 0 || picks[i] >= static_cast<Index>(choices.size()))
      throw ValueError(concat("NOAH: pick ", picks[i], " of ", choices.size(), " choices"));
    genes[i] = choices[static_cast<std::size_t>(picks[i])];
  }
  return genes;
}

GRAFT_KERNEL Genes cross(const std::vector<Genes>& parents, const std::vector<Index>& picks) {
  Genes child;
  for (std::size_t i = 0; i < picks.size(); ++i) {
    if (picks[i] < 0 || picks[i] >= static_cast<Index>(parents.size()))
      throw ValueError(concat("NOAH: parent ", picks[i], " of ", parents.size()));
    const auto& parent = parents[static_cast<std::size_t>(picks[i])];
    if (parent.size() != picks.size())
      throw ShapeError(concat("NOAH: ", picks.size(), " picks for ", parent.size(), " genes"));
    child.push_back(parent[i]);
  }
  return child;
}

GRAFT_KERNEL Candidate search(const SearchConfig& config,
                              const std::function<double(const Genes&)>& fitness,
                              TorchGenerator& generator) {
  const auto genes = static_cast<std::size_t>(3 * config.blocks);
  const auto index = [&](std::size_t count) { return generator.below(static_cast<Index>(count)); };
  struct Raw {
    Genes widths, depths;
  };
  const auto expressed = [&](const Raw& raw) {
    Genes acting = raw.widths;
    for (std::size_t kind = 0; kind < raw.depths.size(); ++kind)
      for (Index b = raw.depths[kind]; b < config.blocks; ++b)
        acting[kind * static_cast<std::size_t>(config.blocks) + static_cast<std::size_t>(b)] = 0;
    return acting;
  };
  const auto draws = [&](std::size_t count, std::size_t choices) {
    std::pair<std::vector<double>, std::vector<Index>> d;
    for (std::size_t i = 0; i < count; ++i) {
      d.first.push_back(generator.uniform());
      d.second.push_back(index(choices));
    }
    return d;
  };
  const auto changed = [&](const Raw& raw, double width_probability, double depth_probability) {
    Raw child = raw;
    const auto [u, picks] = draws(genes, config.choices.size());
    child.widths = mutate(child.widths, u, picks, config.choices, width_probability);
    if (!config.depths.empty()) {
      const auto [v, of_depth] = draws(3, config.depths.size());
      child.depths = mutate(child.depths, v, of_depth, config.depths, depth_probability);
    }
    return child;
  };
  const Raw blank{Genes(genes, 0), config.depths.empty() ? Genes{} : Genes(3, config.blocks)};
  std::vector<Raw> raws;
  std::vector<Candidate> seen;
  const auto admit = [&](const std::function<Raw()>& make) {
    for (int trial = 0; trial < 10000; ++trial) {
      Raw raw = make();
      Candidate c{expressed(raw), raw.depths, 0};
      if (parameters(c.genes, config.hidden_size) > config.parameter_limit) continue;
      c.fitness = fitness(c.genes);
      raws.push_back(std::move(raw));
      seen.push_back(std::move(c));
      return;
    }
    throw ValueError(
        concat("NOAH: no candidate with at most ", config.parameter_limit, " parameters"));
  };
  const auto fittest = [&](Index count) {
    std::vector<double> values;
    for (const auto& c : seen) values.push_back(c.fitness);
    return noah::parents(values, count);
  };
  for (Index i = 0; i < config.population; ++i) admit([&] { return changed(blank, 1, 1); });
  for (Index g = 0; g < config.generations; ++g) {
    const auto best = fittest(config.parents);
    const auto parent = [&] {
      return raws[static_cast<std::size_t>(best[static_cast<std::size_t>(index(best.size()))])];
    };
    for (Index i = 0; i < config.mutations; ++i)
      admit(
          [&] { return changed(parent(), config.mutation_probability, config.depth_probability); });
    for (Index i = 0; i < config.crossovers; ++i)
      admit([&] {
        std::vector<Genes> widths, depths;
        for (const Index b : best) {
          widths.push_back(raws[static_cast<std::size_t>(b)].widths);
          depths.push_back(raws[static_cast<std::size_t>(b)].depths);
        }
        Raw child;
        child.widths = cross(widths, draws(genes, best.size()).second);
        if (!config.depths.empty()) child.depths = cross(depths, draws(3, best.size()).second);
        return child;
      });
  }
  return seen.at(static_cast<std::size_t>(fittest(1).at(0)));
}

}  // namespace graft::inline v0_1::noah
