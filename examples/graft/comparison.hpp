#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "report.hpp"

/// What graft compare found out, as tables.
namespace cli {

/// One method, over its seeds.
struct ComparedMethod {
  std::string name, problem;       ///< problem: why there is no result
  std::vector<double> accuracies;  ///< by seed
  std::vector<double> f1;
  std::vector<double> learning_rates;  ///< the one that was chosen; empty before
  std::optional<double> merge;         ///< largest difference of outputs, relative
  double trainable = 0, step_ms = 0, over_frozen = 0, peak_mib = 0, bytes = 0, steps = 0;
};

double mean(const std::vector<double>& values);
/// Standard deviation of a sample; 0 for fewer than two values.
double deviation(const std::vector<double>& values);
double median(std::vector<double> values);

/// Writes table.md, table.csv and table.html below `folder`; the best accuracy comes first.
/// @param settings  pairs for the page
void write_comparison(const std::filesystem::path& folder, const std::string& title,
                      std::vector<ComparedMethod> methods,
                      const std::vector<std::pair<std::string, std::string>>& settings);
std::string comparison_markdown(const std::vector<ComparedMethod>& methods);

}  // namespace cli
