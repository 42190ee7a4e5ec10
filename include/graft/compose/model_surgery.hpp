#pragma once

#include <algorithm>
#include <numeric>
#include <span>
#include <vector>

#include "graft/adapters/prompts/unit_rows.hpp"
#include "graft/autograd/ops/matmul.hpp"
#include "graft/compose/class_statistics.hpp"

/// MOS (model surgery): an adapter for each task, held near the earlier ones while it trains; at
/// test a loop without training finds the adapter of a sample. Training: cross-entropy over the
/// task's classes (`cross_entropy_of_classes`) + 0.1 `orthogonality_loss` from the second task on,
/// `pull_to_mean` after each step of the optimiser; a new adapter starts from the last one. After a
/// task the classifier is trained on samples of the class Gaussians (`sample_class`), on its logits
/// or `normalised_logits`. Source: Sun et al. 2024, arXiv:2412.09441.
namespace graft::inline v0_1 {

struct ModelSurgeryConfig {
  double adapter_momentum = 0.1;
  Index max_iterations = 4;

  static constexpr const char* kPeftType = "MOS";

  template <class Visitor>
  void fields(Visitor& v) {
    v("adapter_momentum", adapter_momentum);
    v("max_iterations", max_iterations);
  }
};

/// θ ← (1 − a) θ + a · mean of the earlier adapters, `earlier[j]` the tensors of adapter j. Without
/// an earlier one θ stays.
template <std::floating_point T>
void pull_to_mean(const std::vector<BasicParameter<T>>& parameters,
                  const std::vector<std::vector<BasicTensor<T>>>& earlier, double a = 0.1) {
  if (earlier.empty()) return;
  for (const auto& adapter : earlier)
    if (adapter.size() != parameters.size())
      throw ValueError(concat("pull_to_mean: an adapter of ", adapter.size(), " tensors for ",
                              parameters.size(), " parameters"));
  for (std::size_t p = 0; p < parameters.size(); ++p) {
    const auto& value = parameters[p].value();
    for (const auto& adapter : earlier)
      if (adapter[p].shape() != value.shape())
        throw ShapeError(
            concat("pull_to_mean: ", adapter[p].shape().text(), " for ", value.shape().text()));
    for (Index i = 0; i < value.size(); ++i) {
      double mean = 0;
      for (const auto& adapter : earlier)
        mean += static_cast<double>(adapter[p][i]) / static_cast<double>(earlier.size());
      value[i] = static_cast<T>((1 - a) * static_cast<double>(value[i]) + a * mean);
    }
  }
}

/// Mean cross-entropy of Z Zᵀ / τ against the identity, Z the rows [features; class means] of
/// length one: features of the batch and stored means are driven apart.
template <std::floating_point T>
BasicVar<T> orthogonality_loss(const BasicVar<T>& features, const BasicTensor<T>& class_means,
                               double temperature = 0.8) {
  const auto z = unit_rows(
      concat_along(0, std::vector<BasicVar<T>>{features, features.tape().constant(class_means)}));
  std::vector<std::int64_t> own(static_cast<std::size_t>(z.rows()));
  std::iota(own.begin(), own.end(), std::int64_t{0});
  return cross_entropy(
      scale(matmul(z, z, Transpose::no, Transpose::yes), static_cast<T>(1 / temperature)), own);
}

/// Logits over their length and a temperature, for training the classifier on samples
/// (`sample_class`): o / (τ (mean over the tasks of ‖o of its classes‖ + 10⁻⁷)). task_sizes:
/// classes of each task in order, all of the logits. As in the program of Zhang et al. 2023 (SLCA,
/// arXiv:2303.05118), which the classifier alignment of MOS follows. @throws ShapeError unless the
/// tasks have the classes of the logits, ValueError for a temperature that is not positive
template <std::floating_point T>
BasicVar<T> normalised_logits(const BasicVar<T>& logits, std::span<const Index> task_sizes,
                              double temperature = 0.1) {
  if (!(temperature > 0)) throw ValueError(concat("MOS: temperature ", temperature));
  if (task_sizes.empty() ||
      std::accumulate(task_sizes.begin(), task_sizes.end(), Index{0}) != logits.cols() ||
      std::any_of(task_sizes.begin(), task_sizes.end(), [](Index n) { return n < 1; }))
    throw ShapeError(concat("normalised_logits: ", task_sizes.size(), " tasks for logits ",
                            logits.shape().text(), ", expected at least one class each and all"));
  BasicVar<T> length;
  Index first = 0;
  for (const Index classes : task_sizes) {
    const auto own = norm_last(slice(logits, -1, first, classes));
    length = length ? add(length, own) : own;
    first += classes;
  }
  const auto mean =
      add_scalar(scale(length, T{1} / static_cast<T>(task_sizes.size())), static_cast<T>(1e-7));
  return scale(div(logits, mean), static_cast<T>(1 / temperature));
}

/// The adapter that was found for a sample, and after how many rounds.
struct RetrievedAdapter {
  Index adapter = 0, rounds = 0;
};
/// Starts with an adapter; a round predicts a class with the current one and takes the adapter of
/// that class's task. Stops when it stays, or after `max_rounds`. `predict(adapter)` gives a class.
template <class Predict>
RetrievedAdapter retrieve_adapter(Index start, std::span<const Index> task_of_class,
                                  Predict&& predict, Index max_rounds = 4) {
  RetrievedAdapter found{start, 0};
  while (found.rounds < max_rounds) {
    ++found.rounds;
    const auto label = static_cast<Index>(predict(found.adapter));
    if (label < 0 || label >= std::ssize(task_of_class))
      throw ValueError(concat("retrieve_adapter: class ", label, " of ", task_of_class.size()));
    const Index task = task_of_class[static_cast<std::size_t>(label)];
    if (task == found.adapter) break;
    found.adapter = task;
  }
  return found;
}

/// softmax(o_found) + softmax(tasks · o_first): logits with the adapters that were found and with
/// that of the first task, [rows, classes].
template <std::floating_point T>
BasicTensor<T> surgery_ensemble(const BasicTensor<T>& found, const BasicTensor<T>& first,
                                Index tasks) {
  if (found.shape() != first.shape())
    throw ShapeError(
        concat("surgery_ensemble: logits ", found.shape().text(), " and ", first.shape().text()));
  auto sharper = first.clone();
  for (T& v : sharper) v *= static_cast<T>(tasks);
  auto p = class_probabilities(found);
  const auto q = class_probabilities(sharper);
  for (Index i = 0; i < p.size(); ++i) p[i] += q[i];
  return p;
}

}  // namespace graft::inline v0_1
