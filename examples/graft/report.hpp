#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace cli {

/// A share as "93.4 %".
std::string percent(double share);

/// A curve: name and points.
struct Curve {
  std::string name;
  std::vector<std::pair<double, double>> points;
};

struct NamedPoint {
  double x, y;
  std::string name;
};

/// Curves, over the steps if nothing else is said, or points with names in one drawing. Among
/// points, a line joins those that no other one beats in both: less far right and higher.
struct Figure {
  std::string title;
  std::string y_label;
  std::vector<Curve> curves = {};
  std::string x_label = "step";
  bool log_x = false;
  std::vector<NamedPoint> points = {};
};

/// Cells by rows, the first of them the head.
struct ReportTable {
  std::string title;
  std::vector<std::vector<std::string>> rows;
};

/// What a page about a run shows; texts may hold anything.
struct Report {
  std::string title;
  std::vector<std::pair<std::string, std::string>> results;
  std::vector<std::pair<std::string, std::string>> settings;
  std::vector<std::pair<std::string, std::string>> samples;  ///< texts below a title
  std::vector<Figure> figures;
  std::vector<ReportTable> tables;
};

/// Writes one HTML page that needs no network. Curves are drawn by gnuplot as SVG; without the
/// program, the page says so.
void write_report(const std::filesystem::path& path, const Report& report);

}  // namespace cli
