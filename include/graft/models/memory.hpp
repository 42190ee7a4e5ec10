#pragma once

#include <algorithm>

#include "graft/compose/adapter_set.hpp"
#include "graft/models/llama.hpp"

namespace graft::inline v0_1::models {

/// One training step, as far as memory depends on it.
struct StepSizes {
  Index batch = 1;
  Index tokens = 1;             ///< a row
  Index trained = 0;            ///< trained elements
  Index rank = 0;               ///< sum of the ranks at the linear layers of a block
  Index first_trained = 0;      ///< block below which nothing is trained; see first_trained_block
  Index recomputed_blocks = 0;  ///< BasicCausalModel's
  bool bf16_saved = false;      ///< BasicTape::Options::bf16_saved
  Index head_rows = 128;        ///< rows of logits at a time
};

/// The first block that an adapter has a part in, by the numbers in the paths of its parts: 0 where
/// it has one below the blocks (embeddings, prompts), the number of blocks where all are above them
/// (output layers, the last norm).
template <std::floating_point T>
Index first_trained_block(const AdapterSet<T>& set, const BasicSiteTable<T>& table) {
  Index first = table.info.layers;
  const auto see = [&](const std::string& path) {
    const auto is_here = [&](const auto* site) { return site->path() == path; };
    if (const Index layer = layer_of(path); layer >= 0)
      first = std::min(first, layer);
    else if (std::none_of(table.linear.begin(), table.linear.end(), is_here) &&
             std::none_of(table.norm.begin(), table.norm.end(), is_here))
      first = 0;
  };
  for (const auto& placed : set.parts()) see(placed.path);
  for (const auto* site : table.linear)
    if (site->biases.of(set.name())) see(site->path());
  for (const auto* site : table.norm)
    if (site->biases.of(set.name())) see(site->path());
  return first;
}

/// Highest number of bytes that tensors of a step with low-rank adapters and AdamW take at once.
///
/// With N = batch · tokens, h = hidden_size, f = intermediate_size, q, k = heads and kv_heads times
/// head_dim, L layers from first_trained on (those below keep nothing), and e = 4 bytes (2 with
/// bf16_saved), a block keeps for each token
///
///     K = e (2 h + q + 2 k + q + 2 f + rank) + 4 (heads + 2) bytes:
///
/// the inputs of its two norms, queries, keys, values, the attention's result, gate and up, and
/// x Aᵀ of each adapter; in f32 the log-sums of the softmax and the norms' factors. Norms and the
/// gated product are computed again. While a pass is in a block, W = 4 N (f + 2 h) bytes are alive
/// besides: the gated product or its gradient, and hidden states; or 4 N (3 f + 2 h) with
/// bf16_saved: gate and up in f32 too.
///
/// Of R recomputed blocks only the input is kept, and K of the one in work, when all later blocks
/// have let go of theirs:
///
///     kept   = N ((L − R) K + R e h)
///     peak   = 12 · trained + 12 N h
///              + max(kept + max(4 · min(head_rows, N) · vocabulary, W), N (R e h + K) + W if R >
///              0)
///
/// 12 bytes a trained element: value and two moments; gradients take the place of what the backward
/// pass has let go. Frozen weights are not counted: they stay in their file, mapped. The pool holds
/// blocks of other sizes ready besides, about 3 % more, or some 20 MiB.
inline double step_bytes(const LlamaConfig& model, const StepSizes& step) {
  const auto d = [](Index i) { return static_cast<double>(i); };
  const double n = d(step.batch) * d(step.tokens), h = d(model.hidden_size),
               f = d(model.intermediate_size), q = d(model.heads * model.head_dim),
               k = d(model.kv_heads * model.head_dim), element = step.bf16_saved ? 2 : 4;
  const double block =
      element * (2 * h + 2 * q + 2 * k + 2 * f + d(step.rank)) + 4 * (d(model.heads) + 2);
  const double work = 4 * n * ((step.bf16_saved ? 3 : 1) * f + 2 * h);
  const double logits = 4 * std::min(d(step.head_rows), n) * d(model.vocabulary);
  const double always = 12 * d(step.trained) + 12 * n * h;
  const Index layers = std::max<Index>(0, model.layers - step.first_trained);
  const double again = d(std::max<Index>(0, std::min(step.recomputed_blocks, layers - 1)));
  const double inputs = n * again * element * h, kept = inputs + n * (d(layers) - again) * block;
  const double recomputing = again > 0 ? inputs + 2 * n * block + work : 0;
  return always + std::max(kept + std::max(logits, work), recomputing);
}

}  // namespace graft::inline v0_1::models
