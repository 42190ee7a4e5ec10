#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace cli {

/// A curve: name and points.
struct Curve {
  std::string name;
  std::vector<std::pair<double, double>> points;
};

/// A table row or a text of the report.
struct Report {
  std::string title;
  std::vector<std::pair<std::string, std::string>> results;
  std::vector<std::pair<std::string, std::string>> settings;
  std::vector<std::pair<std::string, std::string>> samples;
  std::vector<Curve> losses;
  std::vector<Curve> throughput;
};

/// Writes one HTML page that needs no network; curves are drawn by gnuplot as SVG, or listed as
/// missing if gnuplot is absent.
void write_report(const std::filesystem::path& path, const Report& report);

}  // namespace cli
