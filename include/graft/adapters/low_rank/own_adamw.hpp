#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/part.hpp"
#include "graft/adapters/procedure_state.hpp"
#include "graft/autograd/parameter.hpp"
#include "graft/base/rng.hpp"
#include "graft/base/splitmix.hpp"
#include "graft/kernels/optimizer.hpp"

/// AdamW for parameters that the optimiser of a run does not know: it was made before them, or has
/// to merge what it remembers of them.
namespace graft::inline v0_1::detail {

/// Moments of one parameter (β 0.9 and 0.999, ε 10⁻⁸, decoupled decay).
template <std::floating_point T>
struct OwnAdamW {
  BasicTensor<T> first, second;
  Index steps = 0;

  /// Moves the parameter against its gradient, which is dropped.
  void step(const BasicParameter<T>& parameter, double rate, double decay) {
    constexpr double kBeta1 = 0.9, kBeta2 = 0.999, kEps = 1e-8;
    const auto& value = parameter.value();
    if (!first || first.size() != value.size()) {
      first = BasicTensor<T>::zeros(value.shape());
      second = BasicTensor<T>::zeros(value.shape());
      steps = 0;
    }
    const double t = static_cast<double>(++steps);
    kernels::adamw_step(value.data(), parameter.grad().data(), first.data(), second.data(),
                        value.size(), rate, kBeta1, kBeta2, kEps, decay, 1 - std::pow(kBeta1, t),
                        1 - std::pow(kBeta2, t), 1.0);
    parameter.zero_grad();
  }
  void keep(ProcedureState& state, const std::string& name) const {
    if (steps == 0) return;
    keep_values(state, name + ".first", first);
    keep_values(state, name + ".second", second);
    state[name + ".steps"] = {static_cast<double>(steps)};
  }
  void restore(const ProcedureState& state, const std::string& name, const Shape& shape) {
    first = kept_values<T>(state, name + ".first", shape);
    second = kept_values<T>(state, name + ".second", shape);
    steps = static_cast<Index>(kept_number(state, name + ".steps", 0));
  }
};

/// The parameters that a procedure added while a run went on, by name: it moves them itself.
template <std::floating_point T>
class GrownParameters {
 public:
  /// `born`: the step in which it was added.
  void add(std::string name, BasicParameter<T> parameter, Index born = 1) {
    entries_.push_back({std::move(name), std::move(parameter), {}, born});
  }
  /// A parameter that was added before and is trained from the step `born` on.
  void set_born(const BasicParameter<T>& parameter, Index born) {
    for (auto& e : entries_)
      if (e.parameter == parameter) e.born = born;
  }
  void step(double rate, double decay) {
    step([rate](Index) { return rate; }, decay);
  }
  /// With a rate for each `born`.
  void step(const std::function<double(Index)>& rate, double decay) {
    for (auto& e : entries_)
      if (e.parameter.trainable() && e.parameter.grad())
        e.adam.step(e.parameter, rate(e.born), decay);
  }
  void keep(ProcedureState& state) const {
    for (const auto& e : entries_) {
      state["grown." + e.name] = {static_cast<double>(e.born)};
      e.adam.keep(state, "adam." + e.name);
    }
  }
  /// Takes those of `all` that the state names as grown.
  void restore(const ProcedureState& state,
               const std::vector<std::pair<std::string, BasicParameter<T>>>& all) {
    entries_.clear();
    for (const auto& [name, parameter] : all) {
      if (!state.contains("grown." + name)) continue;
      add(name, parameter, static_cast<Index>(kept_number(state, "grown." + name, 1)));
      entries_.back().adam.restore(state, "adam." + name, parameter.shape());
    }
  }

 private:
  struct Entry {
    std::string name;
    BasicParameter<T> parameter;
    OwnAdamW<T> adam;
    Index born = 1;
  };
  std::vector<Entry> entries_;
};

/// Names in front of which the paths of their layers stand; `parts` have `named()`.
template <std::floating_point T, class Part>
std::vector<std::pair<std::string, BasicParameter<T>>> with_paths(
    const std::vector<std::string>& paths, const std::vector<Part*>& parts) {
  std::vector<std::pair<std::string, BasicParameter<T>>> list;
  for (std::size_t i = 0; i < paths.size(); ++i)
    for (auto& [name, parameter] : parts[i]->named())
      list.emplace_back(paths[i] + "." + name, std::move(parameter));
  return list;
}

/// Ranks of the factors lora_A.0, lora_A.1, … of a file.
inline std::vector<Index> ranks_in_file(const CheckpointShapes& shapes) {
  std::vector<Index> ranks;
  while (const Shape* shape = shapes(concat("lora_A.", ranks.size()))) {
    if (shape->rank() != 2) break;
    ranks.push_back((*shape)[0]);
  }
  return ranks;
}
/// How many blocks from the first on have the ranks that a file has. These stay the same parameters
/// when it is read: an optimiser may know them.
template <class Blocks>
std::size_t blocks_as_in_file(const Blocks& blocks, const std::vector<Index>& ranks) {
  std::size_t same = 0;
  while (same < std::min(ranks.size(), blocks.size()) && blocks[same].a.shape()[0] == ranks[same])
    ++same;
  return same;
}

/// N(0, 0.02²), a function of a seed and of what is drawn, so that a run that goes on from a
/// checkpoint draws what an unbroken one does.
template <std::floating_point T>
BasicTensor<T> seeded_factor(std::uint64_t seed, std::uint64_t module, std::uint64_t number,
                             const Shape& shape) {
  TorchGenerator generator(splitmix64(splitmix64(seed * kSplitMixStep + module) + number));
  auto t = BasicTensor<T>::empty(shape);
  generator.normal(t.data(), t.size(), 0.0, 0.02);
  return t;
}

}  // namespace graft::inline v0_1::detail
