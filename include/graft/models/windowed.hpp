#pragma once

#include <algorithm>
#include <span>
#include <vector>

#include "graft/layers/window_cache.hpp"
#include "graft/models/causal_model.hpp"

namespace graft::inline v0_1::models {

/// Loss of one sequence and its gradients, computed `windows[0]`, `windows[1]`, … tokens at a time
/// (`BasicWindowedSequence`): the same as `model.loss` and a backward pass, up to rounding. Virtual
/// tokens of prompts belong to the first window. Auxiliary losses of adapters are left out. How
/// many tokens a window may have beside inference: `CoServingSchedule`. Source: Miao et al. 2024,
/// arXiv:2402.18789.
/// @throws ValueError for a model that classifies rows or recomputes its blocks, several sequences,
/// a mask, or windows that do not sum to the tokens
template <std::floating_point T>
T windowed_backward(const BasicCausalModel<T>& model, const BasicBatch<T>& batch,
                    const std::vector<Index>& windows,
                    const typename BasicTape<T>::Options& options = {}) {
  model.expect_language_model("windowed_backward");
  Index tokens = 0;
  for (const Index n : windows) {
    if (n < 1) throw ValueError(concat("windowed_backward: a window of ", n, " tokens"));
    tokens += n;
  }
  if (batch.batch != 1 || !batch.mask.empty() || tokens != batch.seq_len)
    throw ValueError(concat("windowed_backward: windows of ", tokens, " tokens for ", batch.batch,
                            " sequences of ", batch.seq_len,
                            batch.mask.empty() ? "" : " with a mask"));
  if (model.recomputed_blocks > 0)
    throw ValueError("windowed_backward: the model recomputes its blocks (recomputed_blocks)");
  if (batch.labels.size() != batch.ids.size())
    throw ShapeError(concat("windowed_backward: ", batch.labels.size(), " labels for ",
                            batch.ids.size(), " tokens"));
  std::vector<T> weights;
  const auto labels = model.predicted_tokens(batch, weights);
  BasicWindowedSequence<T> sequence(options);
  std::vector<Index> counts;
  std::vector<T> losses;
  std::size_t first = 0, row = 0;
  for (const Index n : windows) {
    auto part = batch;
    const auto size = static_cast<std::size_t>(n);
    const auto cut = [&](auto& list) {
      if (list.size() != batch.ids.size()) return;
      list = {list.begin() + static_cast<Index>(first),
              list.begin() + static_cast<Index>(first + size)};
    };
    part.seq_len = n;
    cut(part.labels);
    cut(part.instruction_mask);
    cut(part.modality);
    cut(part.ids);
    T loss = 0;
    sequence.forward([&](BasicTape<T>& tape, BasicKvCache<T>& cache) {
      const auto h = model.hidden(tape, part, &cache);
      const auto rows = static_cast<std::size_t>(h.rows());
      const auto own = std::span(labels).subspan(row, rows);
      const auto of_rows =
          weights.empty() ? std::span<const T>() : std::span<const T>(weights).subspan(row, rows);
      row += rows;
      counts.push_back(
          std::count_if(own.begin(), own.end(), [](auto l) { return l != kIgnoredLabel; }));
      if (counts.back() == 0) return h;  // later windows still ask for its keys and values
      const auto y = linear_cross_entropy(
          h, model.head, own, Index{128}, static_cast<std::vector<unsigned char>*>(nullptr),
          static_cast<std::vector<T>*>(nullptr), of_rows, model.logit_cap);
      loss = y.item();
      return y;
    });
    losses.push_back(loss);
    first += size;
  }
  Index counted = 0;
  for (const Index c : counts) counted += c;
  T total = 0;
  std::vector<BasicTensor<T>> gradients;
  for (std::size_t w = 0; w < counts.size(); ++w) {
    const T share = static_cast<T>(counts[w]) / static_cast<T>(std::max<Index>(1, counted));
    total += share * losses[w];
    gradients.push_back(counts[w] > 0 ? BasicTensor<T>::scalar(share) : BasicTensor<T>{});
  }
  sequence.backward(gradients);
  return total;
}

}  // namespace graft::inline v0_1::models
