#pragma once

#include <utility>
#include <vector>

#include "graft/compose/class_statistics.hpp"

/// Learning, accumulation, ensemble: any adapter in two copies. Task t trains the online copy on
/// the task's own classes (`cross_entropy_of_classes`; from the second task on the copy is frozen
/// for the first epochs, 3 of 5, while new rows of the head learn), the offline copy follows, and
/// at test both are asked. Source: Gao et al. 2023, arXiv:2303.10070.
namespace graft::inline v0_1 {

/// The offline copy of an adapter: equal to the online one after the first task, then
///
///     θ_off ← α θ_off + (1 − α) θ_on   after each step
template <std::floating_point T>
class OfflineCopy {
 public:
  /// Copies the parameters as they are: make it after the first task.
  explicit OfflineCopy(std::vector<BasicParameter<T>> online, double ema = 0.9999)
      : online_(std::move(online)), ema_(ema) {
    if (!(ema >= 0) || ema > 1) throw ValueError(concat("LAE: ema ", ema, ", expected 0 to 1"));
    for (const auto& p : online_) values_.push_back(p.value().clone());
  }
  void accumulate() {
    for (std::size_t i = 0; i < values_.size(); ++i) {
      const auto& now = online_[i].value();
      if (now.size() != values_[i].size())
        throw ShapeError(concat("LAE: the online copy became ", now.shape().text(), " from ",
                                values_[i].shape().text()));
      for (Index j = 0; j < now.size(); ++j)
        values_[i][j] = static_cast<T>(ema_ * static_cast<double>(values_[i][j]) +
                                       (1 - ema_) * static_cast<double>(now[j]));
    }
  }
  const std::vector<BasicTensor<T>>& values() const { return values_; }
  /// Calls `f()` while the adapter has the offline values; the online ones are back afterwards,
  /// with their bits.
  template <class F>
  auto evaluate(F&& f) const {
    struct Exchange {
      const OfflineCopy* copy;
      void swap() const {
        for (std::size_t i = 0; i < copy->values_.size(); ++i) {
          const auto& now = copy->online_[i].value();
          std::swap_ranges(now.begin(), now.end(), copy->values_[i].begin());
        }
      }
      explicit Exchange(const OfflineCopy* c) : copy(c) { swap(); }
      Exchange(const Exchange&) = delete;
      Exchange& operator=(const Exchange&) = delete;
      ~Exchange() { swap(); }
    } exchange(this);
    return f();
  }

 private:
  std::vector<BasicParameter<T>> online_;
  std::vector<BasicTensor<T>> values_;
  double ema_;
};

/// max(softmax(online), softmax(offline)) of each of the first `seen` classes, [rows, seen];
/// `best_classes` of it are the predictions.
template <std::floating_point T>
BasicTensor<T> lae_ensemble(const BasicTensor<T>& online, const BasicTensor<T>& offline,
                            Index seen = 0) {
  if (online.shape() != offline.shape())
    throw ShapeError(
        concat("lae_ensemble: logits ", online.shape().text(), " and ", offline.shape().text()));
  auto p = class_probabilities(online, seen);
  const auto q = class_probabilities(offline, seen);
  for (Index i = 0; i < p.size(); ++i) p[i] = std::max(p[i], q[i]);
  return p;
}

}  // namespace graft::inline v0_1
