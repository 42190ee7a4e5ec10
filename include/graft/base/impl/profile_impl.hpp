#pragma once

#include <algorithm>

#include "graft/base/profile.hpp"

namespace graft::inline v0_1 {

GRAFT_KERNEL std::vector<Profile::Row> Profile::rows() const {
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

GRAFT_KERNEL std::string Profile::table() const {
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

GRAFT_KERNEL std::string Profile::chrome_trace() const {
  std::string text = "{\"displayTimeUnit\": \"ms\", \"traceEvents\": [";
  const char* separator = "\n";
  char buffer[256];
  for (const Event& e : events_) {
    std::snprintf(buffer, sizeof buffer,
                  "%s{\"name\": \"%s\", \"ph\": \"X\", \"pid\": 1, \"tid\": 1, \"ts\": %.3f, "
                  "\"dur\": %.3f, \"args\": {\"operations\": %.0f, \"bytes\": %.0f}}",
                  separator, e.name, 1e6 * e.begin, 1e6 * (e.end - e.begin), e.operations, e.bytes);
    text += buffer;
    separator = ",\n";
  }
  return text + "\n]}\n";
}

}  // namespace graft::inline v0_1
