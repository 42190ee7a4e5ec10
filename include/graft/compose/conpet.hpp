#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "graft/base/order.hpp"
#include "graft/compose/class_statistics.hpp"

/// ConPET: continual training whose cost does not grow with the number of tasks. Static: one
/// adapter and replay within a fixed number of batches (`replay_batches`). Dynamic: an adapter and
/// a classifier for each task, of which a small selector (any adapter and a linear layer to one
/// logit a task, trained with cross-entropy on the numbers of tasks, times 0.1 beside other losses)
/// picks k for each sample; what frozen adapters say about stored samples is kept (`LogitCache`).
/// Source: Song et al. 2023, arXiv:2309.14763.
namespace graft::inline v0_1 {

struct ConpetConfig {
  Index top_k = 1;
  double negative_logit = -1e4;  ///< of all classes of tasks that are not asked

  static constexpr const char* kPeftType = "CONPET";

  template <class Visitor>
  void fields(Visitor& v) {
    v("top_k", top_k);
    v("negative_logit", negative_logit);
  }
};

/// The k best tasks of each row of the selector's logits, [rows, tasks], best first, of equal ones
/// the first; all tasks if there are no more than k. With `truth` (in training) the true task
/// replaces the worst chosen one unless it is there.
template <std::floating_point T>
std::vector<std::vector<Index>> choose_tasks(const BasicTensor<T>& selector, Index k,
                                             std::span<const std::int64_t> truth = {}) {
  const Index rows = selector.rows(), tasks = selector.cols();
  if (k < 1) throw ValueError(concat("ConPET: top_k ", k, ", expected at least 1"));
  if (!truth.empty() && std::ssize(truth) != rows)
    throw ShapeError(concat("choose_tasks: ", truth.size(), " true tasks for ", rows, " rows"));
  std::vector<std::vector<Index>> chosen;
  for (Index r = 0; r < rows; ++r) {
    std::vector<double> values;
    for (Index j = 0; j < tasks; ++j) values.push_back(static_cast<double>(selector(r, j)));
    auto order = largest_first(values);
    order.resize(static_cast<std::size_t>(std::min(k, tasks)));
    if (!truth.empty()) {
      const auto own = static_cast<Index>(truth[static_cast<std::size_t>(r)]);
      if (own < 0 || own >= tasks)
        throw ValueError(concat("choose_tasks: task ", own, " of ", tasks));
      if (std::find(order.begin(), order.end(), own) == order.end()) order.back() = own;
    }
    chosen.push_back(std::move(order));
  }
  return chosen;
}

/// Logits of all tasks' classes side by side, those of tasks that a row does not ask for replaced.
/// logits[t]: [rows, classes of t], of which only chosen rows are read.
template <std::floating_point T>
BasicTensor<T> chosen_logits(const std::vector<BasicTensor<T>>& logits,
                             const std::vector<std::vector<Index>>& chosen,
                             double negative_logit = -1e4) {
  const auto rows = static_cast<Index>(chosen.size());
  std::vector<Index> first{0};
  for (const auto& own : logits) {
    if (own.rows() != rows)
      throw ShapeError(
          concat("chosen_logits: logits ", own.shape().text(), " for ", rows, " rows"));
    first.push_back(first.back() + own.cols());
  }
  auto all = BasicTensor<T>::full({rows, first.back()}, static_cast<T>(negative_logit));
  for (Index r = 0; r < rows; ++r)
    for (const Index task : chosen[static_cast<std::size_t>(r)]) {
      const auto& own = logits.at(static_cast<std::size_t>(task));
      std::copy_n(own.data() + r * own.cols(), own.cols(),
                  all.data() + r * all.cols() + first[static_cast<std::size_t>(task)]);
    }
  return all;
}

/// Batches of a static task: half new and half stored samples, all of either in random order (the
/// stored ones again and again), no more batches than `limit` (0: until every new sample was seen).
/// Numbers: new samples from 0 on, stored ones from `fresh` on.
inline std::vector<std::vector<Index>> replay_batches(Index fresh, Index stored, Index batch,
                                                      Index limit, TorchGenerator& generator) {
  if (fresh < 0 || stored < 0 || batch < 1 || limit < 0 || (stored > 0 && batch < 2))
    throw ValueError(concat("replay_batches: ", fresh, " new and ", stored,
                            " stored samples in batches of ", batch, ", at most ", limit));
  const Index old = stored > 0 ? batch / 2 : 0;
  const auto order = generator.randperm(fresh);
  std::vector<std::int64_t> again;
  std::vector<std::vector<Index>> batches;
  for (Index next = 0; next < fresh && (limit == 0 || std::ssize(batches) < limit);) {
    auto& list = batches.emplace_back();
    for (Index i = 0; i < batch - old && next < fresh; ++i)
      list.push_back(static_cast<Index>(order[static_cast<std::size_t>(next++)]));
    for (Index i = 0; i < old; ++i) {
      if (again.empty()) again = generator.randperm(stored);
      list.push_back(fresh + static_cast<Index>(again.back()));
      again.pop_back();
    }
  }
  return batches;
}

/// What frozen adapters said about stored samples: computed once for each pair of a task and a
/// sample.
template <std::floating_point T>
class LogitCache {
 public:
  /// The logits of a sample, from `compute()` the first time.
  template <class Compute>
  const BasicTensor<T>& get(Index task, Index sample, Compute&& compute) {
    const auto [it, added] = rows_.try_emplace({task, sample});
    if (added) it->second = compute().clone();
    return it->second;
  }
  Index size() const { return static_cast<Index>(rows_.size()); }
  /// Forgets a sample that left the memory.
  void drop(Index sample) {
    std::erase_if(rows_, [&](const auto& row) { return row.first.second == sample; });
  }

 private:
  std::map<std::pair<Index, Index>, BasicTensor<T>> rows_;
};

}  // namespace graft::inline v0_1
