#pragma once

#include <algorithm>
#include <vector>

#include "graft/autograd/ops/topk_mixture.hpp"
#include "graft/tensor/tensor.hpp"

/// Expert-specialised fine-tuning (Wang et al. 2024, arXiv:2407.01906): which experts of a
/// pretrained mixture a task uses most. Only these are trained then, as they are; router, shared
/// experts and all others stay frozen.
namespace graft::inline v0_1::esft {

namespace detail {

/// Mean over samples and their tokens of f(gate), for each layer and expert. gates: [layers,
/// samples, tokens, experts].
template <std::floating_point T, class F>
BasicTensor<T> mean_over_tokens(const BasicTensor<T>& gates, F&& f) {
  if (gates.rank() != 4)
    throw ShapeError(concat("ESFT: gates ", gates.shape().text(),
                            ", expected [layers, samples, tokens, experts]"));
  const Index layers = gates.dim(0), count = gates.dim(1) * gates.dim(2), experts = gates.dim(3);
  auto score = BasicTensor<T>::zeros({layers, experts});
  for (Index l = 0; l < layers; ++l)
    for (Index e = 0; e < experts; ++e) {
      double total = 0;
      for (Index t = 0; t < count; ++t)
        total += f(static_cast<double>(gates.data()[(l * count + t) * experts + e]));
      score(l, e) = static_cast<T>(total / static_cast<double>(std::max(count, Index{1})));
    }
  return score;
}

}  // namespace detail

/// Gate scores: g_i = mean over the tokens of the router's weight G_i, divided by their sum over
/// the experts of a layer. gates: [layers, samples, tokens, experts], 0 for experts that a token
/// does not run; result [layers, experts]. Section 3.1. @throws ShapeError
template <std::floating_point T>
BasicTensor<T> gate_scores(const BasicTensor<T>& gates) {
  auto score = detail::mean_over_tokens(gates, [](double g) { return g; });
  for (Index l = 0; l < score.rows(); ++l) {
    double total = 0;
    for (Index e = 0; e < score.cols(); ++e) total += static_cast<double>(score(l, e));
    for (Index e = 0; e < score.cols() && total > 0; ++e)
      score(l, e) = static_cast<T>(static_cast<double>(score(l, e)) / total);
  }
  return score;
}

/// Token scores: r_i = mean over the tokens of 1[G_i > 0] / K, K experts a token. @throws
/// ShapeError for gates of another shape, ValueError for a K below one
template <std::floating_point T>
BasicTensor<T> token_scores(const BasicTensor<T>& gates, Index top_k) {
  if (top_k < 1) throw ValueError(concat("ESFT: K = ", top_k, ", expected at least 1"));
  return detail::mean_over_tokens(
      gates, [top_k](double g) { return g > 0 ? 1 / static_cast<double>(top_k) : 0; });
}

/// The experts of each layer to be trained: of the scores in descending order the shortest
/// beginning whose sum reaches p (less 10⁻⁶), ties by number. scores: [layers, experts].
/// @throws ValueError for a p outside of (0, 1]
template <std::floating_point T>
std::vector<std::vector<Index>> select_experts(const BasicTensor<T>& scores, double p) {
  if (!(p > 0 && p <= 1)) throw ValueError(concat("ESFT: p = ", p, ", expected (0, 1]"));
  std::vector<std::vector<Index>> selected;
  for (Index l = 0; l < scores.rows(); ++l) {
    auto& own = selected.emplace_back();
    double total = 0;
    for (const auto e : largest(scores.data() + l * scores.cols(), scores.cols(), scores.cols())) {
      if (total >= p - 1e-6 || !(scores(l, e) > 0)) break;
      own.push_back(e);
      total += static_cast<double>(scores(l, e));
    }
    std::sort(own.begin(), own.end());
  }
  return selected;
}

}  // namespace graft::inline v0_1::esft
