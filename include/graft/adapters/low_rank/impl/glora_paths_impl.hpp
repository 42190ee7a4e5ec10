#pragma once

#include <algorithm>
#include <utility>

#include "graft/adapters/low_rank/glora_paths.hpp"

namespace graft::inline v0_1::glora {

GRAFT_KERNEL std::span<const std::string_view> choices(std::string_view tensor) {
  static constexpr std::string_view kWords[] = {"lora", "vector", "constant", "none"};
  static constexpr std::string_view kColumn[] = {"lora", "vector", "none"};
  if (tensor == "C") return kColumn;
  return tensor < "C" ? std::span<const std::string_view>(kWords)
                      : std::span<const std::string_view>(kWords).subspan(1);
}

GRAFT_KERNEL void check(const Paths& paths) {
  for (const char* name : kTensors) {
    const auto it = paths.find(name);
    const std::string path = it == paths.end() ? "" : it->second;
    const auto known = choices(name);
    if (std::find(known.begin(), known.end(), path) == known.end())
      throw ValueError(concat("GLoRA: path '", path, "' of ", name, " is unknown"));
  }
}

GRAFT_KERNEL Paths draw(TorchGenerator& generator) {
  Paths paths;
  for (const char* name : kTensors) {
    const auto words = choices(name);
    paths[name] = words[static_cast<std::size_t>(generator.below(std::ssize(words)))];
  }
  return paths;
}

GRAFT_KERNEL bool trains(const Paths& paths) {
  return std::any_of(paths.begin(), paths.end(),
                     [](const auto& one) { return one.first != "D" && one.second != "none"; });
}

GRAFT_KERNEL Candidate search(const SearchConfig& config,
                              const std::function<double(const std::vector<Paths>&)>& fitness,
                              TorchGenerator& generator) {
  if (config.layers < 1 || config.population < 1 || config.parents < 1)
    throw ValueError(concat("GLoRA: search over ", config.layers, " layers with a population of ",
                            config.population, " and ", config.parents,
                            " parents, expected at least 1"));
  const auto layers = static_cast<std::size_t>(config.layers);
  std::vector<Candidate> seen;
  const auto admit = [&](const std::function<Paths(std::size_t)>& layer) {
    Candidate c;
    for (std::size_t l = 0; l < layers; ++l) c.layers.push_back(layer(l));
    c.fitness = fitness(c.layers);
    seen.push_back(std::move(c));
  };
  const auto fittest = [&](Index count) {
    std::vector<double> scores;
    for (const auto& c : seen) scores.push_back(c.fitness);
    auto order = largest_first(scores);
    order.resize(std::min(order.size(), static_cast<std::size_t>(count)));
    return order;
  };
  for (Index i = 0; i < config.population; ++i) admit([&](std::size_t) { return draw(generator); });
  for (Index g = 0; g < config.generations; ++g) {
    const auto best = fittest(config.parents);
    const auto parent = [&] {
      const auto pick = static_cast<std::size_t>(generator.below(std::ssize(best)));
      return seen[static_cast<std::size_t>(best[pick])].layers;
    };
    for (Index i = 0; i < config.crossovers; ++i) {
      const auto one = parent(), other = parent();
      admit([&](std::size_t l) { return generator.uniform() < 0.5 ? one[l] : other[l]; });
    }
    for (Index i = 0; i < config.mutations; ++i) {
      const auto one = parent();
      admit([&](std::size_t l) {
        return generator.uniform() < config.mutation_probability ? draw(generator) : one[l];
      });
    }
  }
  return seen.at(static_cast<std::size_t>(fittest(1).at(0)));
}

}  // namespace graft::inline v0_1::glora
