#pragma once

#include <array>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "graft/base/error.hpp"
#include "graft/base/order.hpp"
#include "graft/base/rng.hpp"
#include "graft/config.hpp"

/// The paths of GLoRA's supernet and the search among them.
namespace graft::inline v0_1::glora {

/// The path of each of the tensors A to E of one layer.
using Paths = std::map<std::string, std::string>;

inline constexpr std::array<const char*, 5> kTensors = {"A", "B", "C", "D", "E"};

/// Paths that a tensor can take: A, B: lora, vector, constant, none; C without constant; D, E
/// without lora.
GRAFT_KERNEL std::span<const std::string_view> choices(std::string_view tensor);

/// @throws ValueError for a missing tensor or an unknown path.
GRAFT_KERNEL void check(const Paths& paths);

/// A path for each tensor, uniformly and independently.
GRAFT_KERNEL Paths draw(TorchGenerator& generator);

/// True if the paths read a tensor whatever the layer is; D needs one with a bias.
GRAFT_KERNEL bool trains(const Paths& paths);

/// Settings of the search, those of the released code.
struct SearchConfig {
  Index layers = 1;
  Index population = 50;
  Index parents = 10;
  Index crossovers = 25;  ///< of a generation
  Index mutations = 25;   ///< of a generation
  Index generations = 20;
  double mutation_probability = 0.2;  ///< of a layer
};

/// The paths of every layer, and their validation score.
struct Candidate {
  std::vector<Paths> layers;
  double fitness = 0;
};

/// Evolution of the paths of all layers: of the `parents` fittest so far, crossovers take each
/// layer from one of two of them, mutations draw the paths of a layer anew with the probability.
/// The fittest of all that were seen, of equal ones the first. `fitness`: validation score of the
/// paths in a trained supernet. Source: Chavan et al. 2023 (arXiv:2306.07967), in the
/// form of the released code.
/// @throws ValueError for sizes below one.
GRAFT_KERNEL Candidate search(const SearchConfig& config,
                              const std::function<double(const std::vector<Paths>&)>& fitness,
                              TorchGenerator& generator);

}  // namespace graft::inline v0_1::glora

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/adapters/low_rank/impl/glora_paths_impl.hpp"
#endif
