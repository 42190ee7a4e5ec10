#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "graft/base/splitmix.hpp"
#include "graft/layers/kv_cache.hpp"

namespace graft::inline v0_1 {

/// Keys and values of the windows of one sequence, with their gradients: what later windows'
/// queries say about the keys and values of an earlier one gathers here until that window's turn in
/// the backward pass.
template <std::floating_point T>
class BasicWindowCache final : public BasicKvCache<T> {
 public:
  void clear() override {
    BasicKvCache<T>::clear();
    layers_.clear();
    windows_.clear();
  }
  /// What comes now belongs to the next window, on a tape of its own.
  void begin_window() { windows_.emplace_back(); }
  std::pair<BasicVar<T>, BasicVar<T>> extend(Index layer, const BasicVar<T>& k,
                                             const BasicVar<T>& v) override;
  /// Puts the gathered gradients where the backward pass of a window finds them; all later windows
  /// must be done.
  void seed(Index window) const {
    for (const auto& [own, sum, first] : windows_.at(static_cast<std::size_t>(window)))
      if (own.requires_grad() && sum->gradient)
        own.grad_ref().add(sum->gradient.slice_rows(first, own.rows()).clone());
  }

 private:
  /// Of the keys, or of the values, of one layer.
  struct Sum {
    Index rows = 0;
    bool wanted = false;
    BasicTensor<T> gradient;
  };
  struct Own {
    BasicVar<T> rows;
    std::shared_ptr<Sum> sum;
    Index first;
  };

  BasicVar<T> joined(const BasicTensor<T>& all, const BasicVar<T>& own, std::shared_ptr<Sum>& sum);

  std::map<Index, std::pair<std::shared_ptr<Sum>, std::shared_ptr<Sum>>> layers_;
  std::vector<std::vector<Own>> windows_;
};

using WindowCache = BasicWindowCache<float>;

/// Fine-tuning on one sequence window by window, with the gradients of the whole.
///
/// Forward: a window of tokens runs through all layers; attention sees keys and values of the
/// earlier windows in a cache. Backward: windows in reverse, each after the gradients that later
/// ones have for its keys and values. Any partition gives the same numbers up to rounding, so a
/// server can put as many tokens of a fine-tuning sequence into an iteration as inference leaves
/// room for (`finetuning_tokens`). Memory: what each window's operations keep, as in one pass, and
/// the gradients of keys and values. Source: Miao et al. 2024, arXiv:2402.18789.
///
///     BasicWindowedSequence<float> sequence;
///     for (…) sequence.forward([&](Tape& tape, KvCache& cache) { return output of the window; });
///     sequence.backward(gradients);
template <std::floating_point T>
class BasicWindowedSequence {
 public:
  using Options = typename BasicTape<T>::Options;

  explicit BasicWindowedSequence(const Options& options = {}) : options_(options) {}

  /// Runs the next window; `f(tape, cache)` is its output, which must take its keys and values from
  /// `cache.extend`.
  template <class F>
  const BasicVar<T>& forward(F&& f) {
    cache_.begin_window();
    auto options = options_;
    options.seed = splitmix64(options.seed + kSplitMixStep * windows_.size());
    auto& window = windows_.emplace_back();
    window.tape = std::make_unique<BasicTape<T>>(options);
    window.output = f(*window.tape, static_cast<BasicKvCache<T>&>(cache_));
    return window.output;
  }
  /// Gradients of everything for those of the windows' outputs, an empty one: none. Values of the
  /// tapes keep their gradients until `clear`. @throws ValueError for another number of gradients
  void backward(const std::vector<BasicTensor<T>>& gradients);
  Index windows() const { return static_cast<Index>(windows_.size()); }
  const BasicWindowCache<T>& cache() const { return cache_; }
  void clear() {
    cache_.clear();
    windows_.clear();
  }

 private:
  struct Window {
    std::unique_ptr<BasicTape<T>> tape;
    BasicVar<T> output;
  };
  Options options_;
  BasicWindowCache<T> cache_;
  std::vector<Window> windows_;
};

using WindowedSequence = BasicWindowedSequence<float>;

/// How many tokens of a fine-tuning sequence go into an iteration with `inference` tokens: the most
/// up to `limit` that `latency(inference, tokens)`, which must not fall with either, keeps within
/// the objective; 0 if there is no room.
template <class Latency>
Index finetuning_tokens(Latency&& latency, Index inference, double objective, Index limit = 256) {
  Index low = 0, high = std::max<Index>(0, limit) + 1;
  while (high - low > 1) {
    const Index middle = low + (high - low) / 2;
    (latency(inference, middle) <= objective ? low : high) = middle;
  }
  return low;
}

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/layers/impl/window_cache_impl.hpp"
#endif
