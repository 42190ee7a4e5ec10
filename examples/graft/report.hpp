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

/// Curves over the steps in one drawing.
struct Figure {
  std::string title;
  std::string y_label;
  std::vector<Curve> curves;
};

/// What a page about a run shows; texts may hold anything.
struct Report {
  std::string title;
  std::vector<std::pair<std::string, std::string>> results;
  std::vector<std::pair<std::string, std::string>> settings;
  std::vector<std::pair<std::string, std::string>> samples;
  std::vector<Figure> figures;
};

/// Writes one HTML page that needs no network. Curves are drawn by gnuplot as SVG; without the
/// program, the page says so.
void write_report(const std::filesystem::path& path, const Report& report);

}  // namespace cli
