#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <string_view>
#include <utility>

#include "graft/base/error.hpp"
#include "graft/base/types.hpp"

namespace graft::inline v0_1 {

enum class Schedule { constant, linear, cosine };

namespace detail {
inline constexpr std::array<std::pair<std::string_view, Schedule>, 3> kSchedules{
    {{"constant", Schedule::constant}, {"linear", Schedule::linear}, {"cosine", Schedule::cosine}}};
}  // namespace detail

/// A schedule by its name. @throws ValueError that lists the names.
inline Schedule schedule_named(std::string_view name) {
  for (const auto& [known, schedule] : detail::kSchedules)
    if (known == name) return schedule;
  throw ValueError(
      concat("schedule '", name, "' is not known; there are constant, linear, cosine"));
}
inline std::string_view schedule_name(Schedule schedule) {
  return detail::kSchedules[static_cast<std::size_t>(schedule)].first;
}

struct LearningRateConfig {
  Schedule schedule = Schedule::constant;
  Index warmup_steps = 0;
  double final_ratio = 0;  ///< share of the learning rate that linear and cosine end at
};

/// Share of the full learning rate at step s of n (s counts from 0): (s + 1) / (w + 1) in the
/// warmup of w steps; then, with p = (s − w) / (n − w),
///
///     constant: 1,   linear: 1 − p,   cosine: (1 + cos π p) / 2
///
/// the last two mapped to [final_ratio, 1]. Deviation from transformers' schedulers: their warmup
/// is s / w, which spends the first step on nothing.
inline double learning_rate_ratio(const LearningRateConfig& config, Index step, Index steps) {
  if (step < config.warmup_steps)
    return static_cast<double>(step + 1) / static_cast<double>(config.warmup_steps + 1);
  if (config.schedule == Schedule::constant) return 1;
  const auto rest = static_cast<double>(std::max<Index>(1, steps - config.warmup_steps));
  const double p = std::min(1.0, static_cast<double>(step - config.warmup_steps) / rest);
  const double share =
      config.schedule == Schedule::linear ? 1 - p : (1 + std::cos(std::numbers::pi * p)) / 2;
  return config.final_ratio + (1 - config.final_ratio) * share;
}

}  // namespace graft::inline v0_1
