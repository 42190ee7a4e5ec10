#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "report.hpp"

/// What graft compare found out, as tables.
namespace cli {

/// A number that says how good a model is.
struct Measure {
  const char* key;     ///< in result.json
  const char* column;  ///< of the tables
  const char* format;
  double scale = 1;
  bool lower_is_better = false;
};
/// What methods are ordered by on a task, and what is shown beside it.
struct Measures {
  Measure first, second;
};
/// @param task  see finetune --task
Measures measures_of(const std::string& task);

/// One method, over its seeds.
struct ComparedMethod {
  std::string name, problem;           ///< problem: why there is no result
  std::vector<double> first, second;   ///< the measures, by seed
  std::vector<double> learning_rates;  ///< the one that was chosen; empty before
  std::optional<double> merge;         ///< largest difference of outputs, relative
  double trainable = 0, step_ms = 0, over_frozen = 0, peak_mib = 0, bytes = 0, steps = 0;
};

double mean(const std::vector<double>& values);
/// Standard deviation of a sample; 0 for fewer than two values.
double deviation(const std::vector<double>& values);
double median(std::vector<double> values);

/// Writes table.md, table.csv and table.html below `folder`; the best method comes first.
/// @param settings  pairs for the page
void write_comparison(const std::filesystem::path& folder, const std::string& title,
                      const Measures& measures, std::vector<ComparedMethod> methods,
                      const std::vector<std::pair<std::string, std::string>>& settings);
std::string comparison_markdown(const Measures& measures,
                                const std::vector<ComparedMethod>& methods);

}  // namespace cli
