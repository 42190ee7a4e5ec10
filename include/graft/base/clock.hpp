#pragma once

#include <time.h>

#include <cstdint>

namespace graft::inline v0_1 {

/// Nanoseconds of a clock that only goes forwards: std::chrono::steady_clock without its header,
/// whose calendar takes every user's compiler a tenth of a second.
inline std::int64_t monotonic_nanoseconds() noexcept {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

}  // namespace graft::inline v0_1
