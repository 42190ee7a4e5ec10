#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "graft/base/error.hpp"
#include "graft/base/order.hpp"
#include "graft/base/rng.hpp"
#include "graft/config.hpp"

/// The search of NOAH: which widths of prompts, LoRA and adapters a model gets, block by block.
/// Genes: prompt lengths of all blocks, then ranks, then widths of adapters.
namespace graft::inline v0_1::noah {

using Genes = std::vector<Index>;

/// Σ over the blocks of n d + 4 r d + (2 a d + a + d, if a > 0): LoRA on queries and values.
/// @throws ShapeError if the genes are not three a block
GRAFT_KERNEL Index parameters(const Genes& genes, Index hidden_size);
/// Numbers of the `count` fittest, the best first; of equal ones the earlier.
GRAFT_KERNEL std::vector<Index> parents(const std::vector<double>& fitness, Index count);
/// Gene i becomes choices[picks[i]] where uniform[i] < probability.
/// @throws ShapeError for other numbers of draws; ValueError for a pick that is no choice
GRAFT_KERNEL Genes mutate(Genes genes, const std::vector<double>& uniform,
                          const std::vector<Index>& picks, const std::vector<Index>& choices,
                          double probability);
/// Gene i of parent picks[i]. @throws ShapeError, ValueError
GRAFT_KERNEL Genes cross(const std::vector<Genes>& parents, const std::vector<Index>& picks);

/// Settings of the search, those of the paper.
struct SearchConfig {
  Index blocks = 12;
  Index hidden_size = 768;
  std::vector<Index> choices = {0, 5, 10, 50, 100};
  /// Blocks from the input on that have prompts, LoRA and adapters at all, one gene each; empty:
  /// all blocks.
  std::vector<Index> depths = {3, 6, 9, 12};
  Index parameter_limit = 640000;
  Index population = 50;
  Index parents = 10;
  Index mutations = 25;   ///< of a generation
  Index crossovers = 25;  ///< of a generation
  Index generations = 20;
  double mutation_probability = 0.2;
  double depth_probability = 0.4;
};

struct Candidate {
  Genes genes;   ///< as they act: 0 beyond the depths
  Genes depths;  ///< of prompts, LoRA and adapters; empty where there are none
  double fitness = 0;
};

/// Evolution by mutation and crossover of the fittest; candidates above the limit are drawn again.
/// The fittest of all that were seen. `fitness`: validation score of genes in a trained supernet.
/// Source: Zhang et al. 2022 (arXiv:2206.04673), section 3.3.
/// @throws ValueError if no candidate below the limit is found
GRAFT_KERNEL Candidate search(const SearchConfig& config,
                              const std::function<double(const Genes&)>& fitness,
                              TorchGenerator& generator);

}  // namespace graft::inline v0_1::noah

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/adapters/selection/impl/noah_search_impl.hpp"
#endif
