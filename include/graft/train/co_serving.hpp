#pragma once

#include <algorithm>
#include <cstddef>
#include <limits>
#include <utility>
#include <vector>

#include "graft/base/error.hpp"
#include "graft/base/types.hpp"

namespace graft::inline v0_1 {

/// Latency f(c, s) of an iteration that runs c tokens of inference and s of fine-tuning, between
/// measured points by bilinear interpolation, and how many tokens of fine-tuning fit beside
/// inference:
///
///     s(c) = max { s ≤ last of s : f(c, s) ≤ limit }, or 0 if even f(c, 0) is over the limit
///
/// f is taken to grow with both: a measured value below one at fewer tokens counts as that one.
/// Beyond the most tokens that were measured it is infinite, so that fine-tuning gives way. The
/// tokens that fit are the next window of `models::windowed_backward`, whose gradients do not
/// depend on how a sequence is cut.
/// Source: Miao et al. 2024, arXiv:2402.18789, hybrid token scheduler.
class CoServingSchedule {
 public:
  /// `latencies[i * s.size() + j]` was measured at c[i] and s[j], in the unit of the limit.
  /// @throws ValueError if c or s do not begin with 0 and increase, or the number of latencies is
  /// not the product of their sizes, or one is not a positive number
  CoServingSchedule(std::vector<Index> c, std::vector<Index> s, std::vector<double> latencies)
      : c_(std::move(c)), s_(std::move(s)), latencies_(std::move(latencies)) {
    check("inference", c_);
    check("fine-tuning", s_);
    if (latencies_.size() != c_.size() * s_.size())
      throw ValueError(concat("CoServingSchedule: ", latencies_.size(), " latencies for ",
                              c_.size(), " x ", s_.size(), " points"));
    for (std::size_t i = 0; i < c_.size(); ++i) {
      for (std::size_t j = 0; j < s_.size(); ++j) {
        double& value = latencies_[i * s_.size() + j];
        if (!(value > 0 && value < std::numeric_limits<double>::infinity()))
          throw ValueError(concat("CoServingSchedule: latency ", value, " at ", c_[i], " and ",
                                  s_[j], " tokens"));
        if (i > 0) value = std::max(value, at(i - 1, j));
        if (j > 0) value = std::max(value, at(i, j - 1));
      }
    }
  }

  /// f(c, s).
  /// @throws ValueError for negative numbers
  double latency(Index inference_tokens, Index fine_tuning_tokens) const {
    if (inference_tokens < 0 || fine_tuning_tokens < 0)
      throw ValueError(
          concat("CoServingSchedule: ", inference_tokens, " and ", fine_tuning_tokens, " tokens"));
    if (inference_tokens > c_.back() || fine_tuning_tokens > s_.back())
      return std::numeric_limits<double>::infinity();
    const auto [i, x] = place(c_, inference_tokens);
    const auto [j, y] = place(s_, fine_tuning_tokens);
    const auto along = [&, j = j, y = y](std::size_t row) {
      return y == 0 ? at(row, j) : (1 - y) * at(row, j) + y * at(row, j + 1);
    };
    return x == 0 ? along(i) : (1 - x) * along(i) + x * along(i + 1);
  }

  /// s(c) for a limit in the unit of the latencies.
  Index fine_tuning_tokens(Index inference_tokens, double limit) const {
    Index fits = 0, over = s_.back() + 1;
    while (fits + 1 < over) {
      const Index middle = fits + (over - fits) / 2;
      (latency(inference_tokens, middle) <= limit ? fits : over) = middle;
    }
    return fits;
  }

 private:
  static void check(const char* what, const std::vector<Index>& points) {
    if (points.empty() || points.front() != 0)
      throw ValueError(concat("CoServingSchedule: numbers of ", what, " tokens begin with 0"));
    for (std::size_t i = 1; i < points.size(); ++i)
      if (points[i] <= points[i - 1])
        throw ValueError(concat("CoServingSchedule: numbers of ", what, " tokens increase, not ",
                                points[i - 1], ", ", points[i]));
  }
  /// The last point that is not over `value`, and how far towards the next one it lies.
  static std::pair<std::size_t, double> place(const std::vector<Index>& points, Index value) {
    const auto next = std::upper_bound(points.begin(), points.end(), value);
    const auto i = static_cast<std::size_t>(next - points.begin()) - 1;
    if (next == points.end()) return {i, 0.0};
    return {i, static_cast<double>(value - points[i]) / static_cast<double>(*next - points[i])};
  }
  double at(std::size_t i, std::size_t j) const { return latencies_[i * s_.size() + j]; }

  std::vector<Index> c_, s_;
  std::vector<double> latencies_;
};

}  // namespace graft::inline v0_1
