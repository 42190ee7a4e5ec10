#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <vector>

#include "graft/autograd/ops/observe_linear.hpp"
#include "graft/kernels/gemm.hpp"
#include "graft/tensor/tensor.hpp"

/// Which entries of matrices are worth training: scores and choices among them. Places are flat,
/// row by row; of equal scores the smaller place wins.
namespace graft::inline v0_1::selection {

using Places = std::vector<std::int64_t>;

/// The k places with the largest scores, the best first.
template <class Score>
Places best(Index count, Index k, Score&& score) {
  Places order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  k = std::clamp<Index>(k, 0, count);
  std::partial_sort(order.begin(), order.begin() + k, order.end(),
                    [&](std::int64_t a, std::int64_t b) {
                      const auto sa = score(a), sb = score(b);
                      return sa > sb || (sa == sb && a < b);
                    });
  order.resize(static_cast<std::size_t>(k));
  return order;
}
template <std::floating_point T>
Places best(const BasicTensor<T>& scores, Index k) {
  return best(scores.size(), k, [&](std::int64_t i) { return scores[i]; });
}
template <std::floating_point T>
Places best_sorted(const BasicTensor<T>& scores, Index k) {
  auto places = best(scores, k);
  std::sort(places.begin(), places.end());
  return places;
}

/// The k best of several arrays seen as one after the other; sorted places in each.
template <std::floating_point T>
std::vector<Places> best_of_all(const std::vector<BasicTensor<T>>& scores, Index k) {
  std::vector<T> all;
  for (const auto& s : scores) all.insert(all.end(), s.begin(), s.end());
  auto chosen = best(static_cast<Index>(all.size()), k,
                     [&](std::int64_t i) { return all[static_cast<std::size_t>(i)]; });
  std::sort(chosen.begin(), chosen.end());
  std::vector<Places> result(scores.size());
  std::size_t array = 0;
  std::int64_t first = 0;
  for (const auto place : chosen) {
    while (place >= first + scores[array].size()) first += scores[array++].size();
    result[array].push_back(place - first);
  }
  return result;
}
/// ⌊density · size⌋ of all arrays together, or of each.
template <std::floating_point T>
std::vector<Places> select(const std::vector<BasicTensor<T>>& scores, double density,
                           bool together) {
  const auto count = [&](Index size) {
    return static_cast<Index>(std::floor(density * static_cast<double>(size)));
  };
  if (together) {
    Index total = 0;
    for (const auto& s : scores) total += s.size();
    return best_of_all(scores, count(total));
  }
  std::vector<Places> result;
  for (const auto& s : scores) result.push_back(best_sorted(s, count(s.size())));
  return result;
}

/// |w|, or −|w| for the smallest.
template <std::floating_point T>
BasicTensor<T> magnitude(const BasicTensor<T>& w, bool largest = true) {
  auto s = BasicTensor<T>::empty(w.shape());
  for (Index i = 0; i < s.size(); ++i) s[i] = largest ? std::abs(w[i]) : -std::abs(w[i]);
  return s;
}
/// |w ⊙ g| with g summed over batches (SNIP).
template <std::floating_point T>
BasicTensor<T> snip(const BasicTensor<T>& w, const BasicTensor<T>& gradient) {
  auto s = BasicTensor<T>::empty(w.shape());
  for (Index i = 0; i < s.size(); ++i) s[i] = std::abs(w[i] * gradient[i]);
  return s;
}
/// Mean of squares of the gradients of single examples, [examples, …] (the empirical Fisher
/// information).
template <std::floating_point T>
BasicTensor<T> fisher(const BasicTensor<T>& example_gradients, const Shape& shape) {
  auto s = BasicTensor<T>::zeros(shape);
  const Index n = s.size(), examples = n == 0 ? 0 : example_gradients.size() / n;
  for (Index e = 0; e < examples; ++e)
    for (Index i = 0; i < n; ++i) {
      const T g = example_gradients[e * n + i];
      s[i] += g * g / static_cast<T>(examples);
    }
  return s;
}
/// The k best columns of each row, best first: [rows, k] (NeuroAda).
template <std::floating_point T>
Places best_of_rows(const BasicTensor<T>& scores, Index k) {
  Places result;
  const Index cols = scores.cols();
  for (Index r = 0; r < scores.rows(); ++r) {
    const auto row =
        best(cols, k, [&](std::int64_t c) { return scores[r * cols + static_cast<Index>(c)]; });
    result.insert(result.end(), row.begin(), row.end());
  }
  return result;
}

/// Gathers what gradients say about one weight, from the inputs and output gradients of its layer.
/// `squares`: the squares of the gradients of single examples are summed, else the
/// gradients themselves.
template <std::floating_point T>
class GradientSum {
 public:
  GradientSum(Index out, Index in, bool squares)
      : sum_(BasicTensor<T>::zeros({out, in})), squares_(squares) {}
  void see(const BasicTensor<T>& x, const BasicTensor<T>& dy, Index examples) {
    const Index out = sum_.rows(), in = sum_.cols(), rows = x.rows();
    if (!squares_) {
      kernels::gemm(true, false, out, in, rows, T{1}, dy.data(), out, x.data(), in, T{1},
                    sum_.data(), in);
      return;
    }
    if (examples < 1 || rows % examples != 0) examples = 1;
    const Index each = rows / examples;
    auto g = BasicTensor<T>::empty({out, in});
    for (Index e = 0; e < examples; ++e) {
      kernels::gemm(true, false, out, in, each, T{1}, dy.data() + e * each * out, out,
                    x.data() + e * each * in, in, T{0}, g.data(), in);
      for (Index i = 0; i < g.size(); ++i) sum_[i] += g[i] * g[i];
    }
  }
  const BasicTensor<T>& sum() const { return sum_; }
  void set_sum(BasicTensor<T> sum) { sum_ = std::move(sum); }

 private:
  BasicTensor<T> sum_;
  bool squares_;
};

}  // namespace graft::inline v0_1::selection
