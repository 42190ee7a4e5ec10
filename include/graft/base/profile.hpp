#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "graft/base/clock.hpp"
#include "graft/base/order.hpp"
#include "graft/base/types.hpp"

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
  std::vector<Row> rows() const {
    std::vector<Row> rows;
    double rest = end_;
    for (const Event& e : events_) {
      auto row =
          std::find_if(rows.begin(), rows.end(), [&](const Row& r) { return r.name == e.name; });
      if (row == rows.end()) {
        rows.push_back({e.name});
        row = rows.end() - 1;
      }
      ++row->calls;
      row->seconds += e.end - e.begin;
      row->operations += e.operations;
      row->bytes += e.bytes;
      rest -= e.end - e.begin;
    }
    std::vector<double> seconds;
    for (const Row& r : rows) seconds.push_back(r.seconds);
    std::vector<Row> sorted;
    for (const Index i : largest_first(seconds))
      sorted.push_back(std::move(rows[static_cast<std::size_t>(i)]));
    sorted.push_back({"between kernels", 0, rest, 0, 0});
    return sorted;
  }

  /// The rows as text: share of the time, milliseconds, calls, GFLOP/s, GiB/s.
  std::string table() const {
    std::string text = line("kernel", "share", "ms", "calls", "GFLOP/s", "GiB/s");
    const auto number = [](double value, int digits) {
      char buffer[48];
      std::snprintf(buffer, sizeof buffer, "%.*f", digits, value);
      return std::string(buffer);
    };
    for (const Row& r : rows()) {
      const double s = std::max(r.seconds, 1e-12);
      text += line(r.name, number(100 * r.seconds / std::max(end_, 1e-12), 1) + " %",
                   number(1e3 * r.seconds, 2), r.calls > 0 ? std::to_string(r.calls) : "",
                   r.operations > 0 ? number(r.operations / s * 1e-9, 1) : "",
                   r.bytes > 0 ? number(r.bytes / s / (1 << 30), 1) : "");
    }
    return text + line("sum", "", number(1e3 * end_, 2), "", "", "");
  }

  /// The events as a trace that chrome://tracing and Perfetto show.
  std::string chrome_trace() const {
    std::string text = "{\"displayTimeUnit\": \"ms\", \"traceEvents\": [";
    const char* separator = "\n";
    char buffer[256];
    for (const Event& e : events_) {
      std::snprintf(buffer, sizeof buffer,
                    "%s{\"name\": \"%s\", \"ph\": \"X\", \"pid\": 1, \"tid\": 1, \"ts\": %.3f, "
                    "\"dur\": %.3f, \"args\": {\"operations\": %.0f, \"bytes\": %.0f}}",
                    separator, e.name, 1e6 * e.begin, 1e6 * (e.end - e.begin), e.operations,
                    e.bytes);
      text += buffer;
      separator = ",\n";
    }
    return text + "\n]}\n";
  }

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
