#pragma once

#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "graft/base/clock.hpp"
#include "graft/base/order.hpp"
#include "graft/base/types.hpp"
#include "graft/config.hpp"

namespace graft::inline v0_1 {

/// Measures the kernels that a thread calls while the profile is on there.
///
///     Profile profile;
///     {
///       const auto on = profile.record();
///       tape.backward(model.loss(tape, batch));
///     }
///     std::puts(profile.table().c_str());
///
/// Times are those of the calling thread: a kernel that shares its work with the pool counts from
/// its call to its return. Bytes are what a kernel has to read and write at least, whatever caches
/// do. Kernels called by kernels count in the outer one. Off, a kernel pays one look at a variable
/// of its thread.
class Profile {
 public:
  struct Event {
    const char* name;
    double begin, end;         ///< seconds since the first record()
    double operations, bytes;  ///< of this call
  };
  struct Row {
    std::string name;
    Index calls = 0;
    double seconds = 0, operations = 0, bytes = 0;
  };

  /// Ends the recording, and gives its place back to the one before.
  class Recording {
   public:
    explicit Recording(Profile* profile) : profile_(profile) {
      if (profile->events_.empty()) {
        profile->events_.reserve(1 << 14);
        profile->start_ = monotonic_nanoseconds();
      }
      before_ = std::exchange(active_, profile);
    }
    Recording(const Recording&) = delete;
    Recording& operator=(const Recording&) = delete;
    ~Recording() {
      active_ = before_;
      profile_->end_ = profile_->now();
    }

   private:
    Profile* profile_;
    Profile* before_;
  };

  /// Records what this thread runs until the result goes out of scope.
  [[nodiscard]] Recording record() { return Recording(this); }

  const std::vector<Event>& events() const { return events_; }
  /// Seconds from the first record() to the end of the last one.
  double seconds() const { return end_; }

  /// Sums by name, the longest first; the last row, "between kernels", is the rest of the time.
  std::vector<Row> rows() const;

  /// The rows as text: share of the time, milliseconds, calls, GFLOP/s, GiB/s.
  std::string table() const;

  /// The events as a trace that chrome://tracing and Perfetto show.
  std::string chrome_trace() const;

 private:
  friend class ProfileScope;
  double now() const { return 1e-9 * static_cast<double>(monotonic_nanoseconds() - start_); }
  static std::string line(const std::string& name, const std::string& share, const std::string& ms,
                          const std::string& calls, const std::string& rate,
                          const std::string& bandwidth) {
    char buffer[160];
    std::snprintf(buffer, sizeof buffer, "%-28s %8s %10s %7s %9s %8s\n", name.c_str(),
                  share.c_str(), ms.c_str(), calls.c_str(), rate.c_str(), bandwidth.c_str());
    return buffer;
  }

  static inline constinit thread_local Profile* active_ = nullptr;
  std::vector<Event> events_;
  std::int64_t start_ = 0;
  double end_ = 0;
};

/// One call of a kernel, from here to the end of the scope; nothing where no profile is on. `name`
/// must be a literal of plain characters.
class ProfileScope {
 public:
  ProfileScope(const char* name, double operations, double bytes) noexcept
      : profile_(std::exchange(Profile::active_, nullptr)) {
    if (profile_ != nullptr) event_ = {name, profile_->now(), 0, operations, bytes};
  }
  ProfileScope(const ProfileScope&) = delete;
  ProfileScope& operator=(const ProfileScope&) = delete;
  ~ProfileScope() {
    if (profile_ == nullptr) return;
    event_.end = profile_->now();
    Profile::active_ = profile_;
    profile_->events_.push_back(event_);
  }

 private:
  Profile* profile_;
  Profile::Event event_{};
};

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/base/impl/profile_impl.hpp"
#endif
