#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "graft/base/error.hpp"
#include "graft/base/rng.hpp"
#include "graft/tensor/tensor.hpp"

/// Arithmetic of task vectors τ = θ_tuned − θ_frozen: pure functions of tensors of one shape.
namespace graft::inline v0_1 {

/// 1 for the `count` entries of largest magnitude, else 0; of equal ones the first is kept.
template <std::floating_point T>
std::vector<unsigned char> largest_entries(std::span<const T> values, Index count) {
  std::vector<unsigned char> mask(values.size(), count < std::ssize(values) ? 0 : 1);
  if (count <= 0 || count >= std::ssize(values)) return mask;
  std::vector<T> sizes(values.size());
  std::transform(values.begin(), values.end(), sizes.begin(), [](T v) { return std::abs(v); });
  const auto last = sizes.begin() + count - 1;
  std::nth_element(sizes.begin(), last, sizes.end(), std::greater<T>());
  const T least = *last;
  Index equal = std::count(sizes.begin(), last + 1, least);
  for (std::size_t i = 0; i < values.size(); ++i)
    mask[i] = std::abs(values[i]) > least || (std::abs(values[i]) == least && equal-- > 0);
  return mask;
}

/// Number of entries that a share of `size` means: its floor.
inline Index share_of(Index size, double share) {
  if (!(share >= 0)) throw ValueError(concat("density ", share, ", expected at least 0"));
  return share >= 1 ? size : static_cast<Index>(share * static_cast<double>(size));
}

namespace detail {

template <std::floating_point T>
void check_tasks(const char* operation, const std::vector<BasicTensor<T>>& tasks,
                 std::size_t weights) {
  if (tasks.empty()) throw ValueError(concat(operation, ": no task vectors"));
  if (tasks.size() != weights)
    throw ValueError(concat(operation, ": ", weights, " weights for ", tasks.size(), " tensors"));
  for (const auto& t : tasks)
    if (t.shape() != tasks[0].shape())
      throw ShapeError(concat(operation, ": shapes ", tasks[0].shape().text(), " and ",
                              t.shape().text(), ", expected equal ones"));
}

template <std::floating_point T>
BasicTensor<T> masked(const BasicTensor<T>& t, const std::vector<unsigned char>& mask) {
  auto result = BasicTensor<T>::zeros(t.shape());
  for (Index i = 0; i < t.size(); ++i)
    if (mask[static_cast<std::size_t>(i)] != 0) result[i] = t[i];
  return result;
}

}  // namespace detail

/// τ with all but its ⌊density · n⌋ largest entries zero.
template <std::floating_point T>
BasicTensor<T> keep_largest(const BasicTensor<T>& t, double density) {
  return detail::masked(
      t, largest_entries(std::span<const T>(t.data(), static_cast<std::size_t>(t.size())),
                         share_of(t.size(), density)));
}

/// DARE: m ⊙ τ / density with m_i = 1 where `mask` is not 0 (Yu et al. 2023, arXiv:2311.03099).
template <std::floating_point T>
BasicTensor<T> drop_and_rescale(const BasicTensor<T>& t, std::span<const unsigned char> mask,
                                double density) {
  if (std::ssize(mask) != t.size())
    throw ShapeError(concat("drop_and_rescale: ", mask.size(), " flags for ", t.size(), " values"));
  auto result = BasicTensor<T>::zeros(t.shape());
  for (Index i = 0; i < t.size(); ++i)
    if (mask[static_cast<std::size_t>(i)] != 0)
      result[i] = static_cast<T>(static_cast<double>(t[i]) / density);
  return result;
}
/// The same with m_i drawn: one with probability `density`, as torch.bernoulli draws for floats.
/// @throws ValueError for a density that is not in (0, 1]; 1 keeps everything.
template <std::floating_point T>
BasicTensor<T> drop_and_rescale(const BasicTensor<T>& t, double density,
                                TorchGenerator& generator) {
  if (!(density > 0)) throw ValueError(concat("DARE: density ", density, ", expected above 0"));
  if (density >= 1) return t.clone();
  std::vector<unsigned char> mask(static_cast<std::size_t>(t.size()));
  for (auto& m : mask)
    m = static_cast<float>(generator.random32() & 0xFFFFFFU) * 0x1p-24F <
        static_cast<float>(density);
  return drop_and_rescale(t, mask, density);
}

/// Σ w_t τ_t.
template <std::floating_point T>
BasicTensor<T> weighted_sum(const std::vector<BasicTensor<T>>& tasks,
                            const std::vector<double>& weights) {
  detail::check_tasks("weighted_sum", tasks, weights.size());
  auto result = BasicTensor<T>::empty(tasks[0].shape());
  for (Index i = 0; i < result.size(); ++i) {
    double sum = 0;
    for (std::size_t t = 0; t < tasks.size(); ++t)
      sum += weights[t] * static_cast<double>(tasks[t][i]);
    result[i] = static_cast<T>(sum);
  }
  return result;
}

/// The sign that an entry has in most tasks: of Σ τ_t ("total") or of Σ sign τ_t ("frequency"); a
/// sum of zero elects +1. @throws ValueError for another word
template <std::floating_point T>
BasicTensor<T> elect_signs(const std::vector<BasicTensor<T>>& tasks,
                           const std::string& method = "total") {
  detail::check_tasks("elect_signs", tasks, tasks.size());
  if (method != "total" && method != "frequency")
    throw ValueError(concat("majority_sign_method '", method, "', expected total or frequency"));
  const bool total = method == "total";
  auto result = BasicTensor<T>::empty(tasks[0].shape());
  for (Index i = 0; i < result.size(); ++i) {
    double sum = 0;
    for (const auto& t : tasks)
      sum += total ? static_cast<double>(t[i]) : static_cast<double>((t[i] > 0) - (t[i] < 0));
    result[i] = sum >= 0 ? T{1} : T{-1};
  }
  return result;
}

/// Σ w_t τ_t over the tasks whose entry has the elected sign, divided by their number (at least 1).
template <std::floating_point T>
BasicTensor<T> disjoint_mean(const std::vector<BasicTensor<T>>& tasks,
                             const std::vector<double>& weights, const BasicTensor<T>& signs) {
  detail::check_tasks("disjoint_mean", tasks, weights.size());
  auto result = BasicTensor<T>::empty(tasks[0].shape());
  for (Index i = 0; i < result.size(); ++i) {
    double sum = 0;
    Index count = 0;
    for (std::size_t t = 0; t < tasks.size(); ++t) {
      if (!(tasks[t][i] * signs[i] > 0)) continue;
      sum += weights[t] * static_cast<double>(tasks[t][i]);
      ++count;
    }
    result[i] = static_cast<T>(sum / static_cast<double>(std::max<Index>(count, 1)));
  }
  return result;
}

/// Model Breadcrumbs (Davari & Belilovsky 2023, arXiv:2312.06795): which entries stay when those of
/// largest magnitude and the small ones go, counted by row (last axis) or in the whole tensor.
struct Breadcrumbs {
  double keep = 0.1;         ///< share of entries that stay
  double remove = 0.01;      ///< share of the largest entries that go
  bool by_row = true;        ///< else one count for the whole tensor
  bool remove_first = true;  ///< else `remove` of all come off the `keep` largest
};
template <std::floating_point T>
std::vector<unsigned char> breadcrumbs_mask(const BasicTensor<T>& t, const Breadcrumbs& options) {
  std::vector<unsigned char> mask(static_cast<std::size_t>(t.size()), 0);
  const Index n = options.by_row && t.rank() > 0 ? t.dim(-1) : t.size();
  const Index remove = share_of(n, options.remove), keep = share_of(n, options.keep);
  const Index outer = options.remove_first ? remove + keep : keep;
  for (Index start = 0; start < t.size(); start += n) {
    const std::span<const T> row(t.data() + start, static_cast<std::size_t>(n));
    const auto large = largest_entries(row, remove), stay = largest_entries(row, outer);
    for (std::size_t i = 0; i < row.size(); ++i)
      mask[static_cast<std::size_t>(start) + i] = stay[i] != 0 && large[i] == 0;
  }
  return mask;
}
/// α Σ m_t ⊙ τ_t.
template <std::floating_point T>
BasicTensor<T> breadcrumbs(const std::vector<BasicTensor<T>>& tasks, const Breadcrumbs& options,
                           double alpha = 0.3) {
  std::vector<BasicTensor<T>> kept;
  for (const auto& t : tasks) kept.push_back(detail::masked(t, breadcrumbs_mask(t, options)));
  return weighted_sum(kept, std::vector<double>(kept.size(), alpha));
}

/// How tensors of several tasks become one.
struct CombineRule {
  /// linear: Σ w τ; magnitude_prune, dare_linear: the same after keeping the largest entries or a
  /// random part of them; ties (Yadav et al. 2023, arXiv:2306.01708), dare_ties: those, then signs
  /// are elected and agreeing entries averaged; breadcrumbs: Σ w m ⊙ τ (see Breadcrumbs).
  std::string kind = "linear";
  double density = 1;  ///< share of entries that all but linear keep
  std::string majority_sign_method = "total";
  double remove = Breadcrumbs{}.remove;  ///< breadcrumbs
  bool by_row = Breadcrumbs{}.by_row;    ///< breadcrumbs
};

/// One tensor from those of several tasks. @throws ValueError for an unknown kind
template <std::floating_point T>
BasicTensor<T> combine_tasks(const CombineRule& rule, std::vector<BasicTensor<T>> tasks,
                             const std::vector<double>& weights, TorchGenerator& generator) {
  const bool dare = rule.kind == "dare_linear" || rule.kind == "dare_ties";
  const bool elects = rule.kind == "ties" || rule.kind == "dare_ties";
  const bool crumbs = rule.kind == "breadcrumbs";
  if (!dare && !elects && !crumbs && rule.kind != "linear" && rule.kind != "magnitude_prune")
    throw ValueError(concat("combination '", rule.kind,
                            "', expected linear, ties, dare_linear, dare_ties, magnitude_prune or "
                            "breadcrumbs"));
  if (rule.kind != "linear")
    for (auto& t : tasks)
      t = dare     ? drop_and_rescale(t, rule.density, generator)
          : crumbs ? detail::masked(
                         t, breadcrumbs_mask(t, {rule.density, rule.remove, rule.by_row, true}))
                   : keep_largest(t, rule.density);
  return elects ? disjoint_mean(tasks, weights, elect_signs(tasks, rule.majority_sign_method))
                : weighted_sum(tasks, weights);
}

/// CoPA-Merging (Zeng et al. 2025, RobustMerge): factors A_t [r, in], B_t [out, r] of one rank.
struct Copa {
  double density = 0.2;          ///< share of each factor that stays
  double attention_ratio = 0.2;  ///< share of directions above the lower bound of the scales
  double scale = 2;              ///< λ
};
template <std::floating_point T>
struct CopaResult {
  BasicTensor<T> a, b;
  std::vector<std::vector<double>> scales;  ///< [task][direction]
};
/// Â, B̂: entries at or above the ⌊(1 − density) n⌋-th magnitude. s_tk = Σ|A_t,k| / Σ|Â_t,k|, from
/// below clamped at its ⌊r (1 − attention_ratio)⌋-th value. A = λ Σ Â_t; column k of B = λ Σ s_tk
/// B̂_t,k / Σ s_tk.
template <std::floating_point T>
CopaResult<T> copa(const std::vector<BasicTensor<T>>& a, const std::vector<BasicTensor<T>>& b,
                   const Copa& options) {
  detail::check_tasks("copa", a, b.size());
  detail::check_tasks("copa", b, a.size());
  const auto pruned = [&](const BasicTensor<T>& t) {
    std::vector<T> magnitudes(static_cast<std::size_t>(t.size()));
    std::transform(t.begin(), t.end(), magnitudes.begin(), [](T v) { return std::abs(v); });
    const Index drop = static_cast<Index>(static_cast<double>(t.size()) * (1 - options.density));
    auto result = t.clone();
    if (drop < 1 || t.size() == 0) return result;
    const auto nth = magnitudes.begin() + std::min(drop, t.size()) - 1;
    std::nth_element(magnitudes.begin(), nth, magnitudes.end());
    for (T& v : result)
      if (std::abs(v) < *nth) v = 0;
    return result;
  };
  const Index rank = a[0].rows(), out = b[0].rows();
  if (b[0].cols() != rank)
    throw ShapeError(concat("copa: A ", a[0].shape().text(), " and B ", b[0].shape().text()));
  CopaResult<T> result;
  std::vector<BasicTensor<T>> small_a, small_b;
  for (std::size_t t = 0; t < a.size(); ++t) {
    small_a.push_back(pruned(a[t]));
    small_b.push_back(pruned(b[t]));
    std::vector<double> s(static_cast<std::size_t>(rank), 1);
    for (Index k = 0; k < rank; ++k) {
      double all = 0, kept = 0;
      for (Index j = 0; j < a[t].cols(); ++j) {
        all += std::abs(static_cast<double>(a[t](k, j)));
        kept += std::abs(static_cast<double>(small_a[t](k, j)));
      }
      if (kept > 0) s[static_cast<std::size_t>(k)] = all / kept;
    }
    auto sorted = s;
    std::sort(sorted.begin(), sorted.end());
    const auto bound = std::min<Index>(
        static_cast<Index>(static_cast<double>(rank) * (1 - options.attention_ratio)), rank - 1);
    for (double& v : s) v = std::max(v, sorted[static_cast<std::size_t>(bound)]);
    result.scales.push_back(std::move(s));
  }
  result.a = weighted_sum(small_a, std::vector<double>(a.size(), options.scale));
  result.b = BasicTensor<T>::zeros(b[0].shape());
  for (Index k = 0; k < rank; ++k) {
    double total = 0;
    for (const auto& s : result.scales) total += s[static_cast<std::size_t>(k)];
    for (Index o = 0; o < out; ++o) {
      double sum = 0;
      for (std::size_t t = 0; t < b.size(); ++t)
        sum +=
            result.scales[t][static_cast<std::size_t>(k)] * static_cast<double>(small_b[t](o, k));
      result.b(o, k) = static_cast<T>(options.scale * sum / total);
    }
  }
  return result;
}

/// Arithmetic of modules that start from the same values (Zhang et al. 2023, arXiv:2306.14870), as
/// the tensor that takes the sign sees it: LoRA's B with `start` 0, IA3's vector with `start` 1:
/// start + Σ σ_t w_t (θ_t − start). LoRA's A takes the weights alone: `weighted_sum`.
template <std::floating_point T>
BasicTensor<T> signed_sum(const std::vector<BasicTensor<T>>& tasks,
                          const std::vector<double>& weights, const std::vector<int>& signs,
                          double start = 0) {
  detail::check_tasks("signed_sum", tasks, weights.size());
  detail::check_tasks("signed_sum", tasks, signs.size());
  auto result = BasicTensor<T>::empty(tasks[0].shape());
  for (Index i = 0; i < result.size(); ++i) {
    double sum = start;
    for (std::size_t t = 0; t < tasks.size(); ++t)
      sum += signs[t] * weights[t] * (static_cast<double>(tasks[t][i]) - start);
    result[i] = static_cast<T>(sum);
  }
  return result;
}

/// Σ w_t of parallel bottleneck adapters with one activation φ, h ↦ U φ(D h + b_D) + b_U, as one
/// wide adapter: D and b_D one below the other, U = [w_t U_t], b_U = Σ w_t b_U,t. Exact.
template <std::floating_point T>
struct BottleneckTensors {
  BasicTensor<T> down, down_bias, up, up_bias;  ///< [m, d], [m], [d, m], [d]
};
template <std::floating_point T>
BottleneckTensors<T> stack_bottlenecks(const std::vector<BottleneckTensors<T>>& adapters,
                                       const std::vector<double>& weights) {
  if (adapters.empty() || adapters.size() != weights.size())
    throw ValueError(concat("stack_bottlenecks: ", weights.size(), " weights for ", adapters.size(),
                            " adapters"));
  const Index width = adapters[0].down.cols(), out = adapters[0].up.rows();
  Index middle = 0;
  for (const auto& a : adapters) {
    if (a.down.cols() != width || a.up.rows() != out || a.up.cols() != a.down.rows())
      throw ShapeError(
          concat("stack_bottlenecks: down ", a.down.shape().text(), ", up ", a.up.shape().text()));
    middle += a.down.rows();
  }
  BottleneckTensors<T> result{BasicTensor<T>::empty({middle, width}),
                              BasicTensor<T>::zeros({middle}), BasicTensor<T>::empty({out, middle}),
                              BasicTensor<T>::zeros({out})};
  Index row = 0;
  for (std::size_t t = 0; t < adapters.size(); ++t) {
    const auto& a = adapters[t];
    const T weight = static_cast<T>(weights[t]);
    for (Index k = 0; k < a.down.rows(); ++k, ++row) {
      for (Index j = 0; j < width; ++j) result.down(row, j) = a.down(k, j);
      if (a.down_bias) result.down_bias[row] = a.down_bias[k];
      for (Index o = 0; o < out; ++o) result.up(o, row) = weight * a.up(o, k);
    }
    if (a.up_bias)
      for (Index o = 0; o < out; ++o) result.up_bias[o] += weight * a.up_bias[o];
  }
  return result;
}

}  // namespace graft::inline v0_1
