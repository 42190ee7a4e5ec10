#include "comparison.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "command.hpp"
#include "graft/base/error.hpp"
#include "graft/io/atomic_file.hpp"
#include "labels.hpp"
#include "texts.hpp"

namespace cli {

using graft::concat;

Measures measures_of(const std::string& task) {
  if (task == "language" || task == kMaskedLanguage)
    return {{"perplexity", "perplexity", "%.3f", 1, true},
            {"accuracy", "token accuracy %", "%.2f", 100}};
  if (task == "regression")
    return {{"pearson", "correlation", "%.4f"},
            {"mean_squared_error", "mean squared error", "%.4f", 1, true}};
  return {{"accuracy", "accuracy %", "%.2f", 100}, {"macro_f1", "mean F1", "%.3f"}};
}

double mean(const std::vector<double>& values) {
  if (values.empty()) return 0;
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double deviation(const std::vector<double>& values) {
  if (values.size() < 2) return 0;
  const double middle = mean(values);
  double sum = 0;
  for (const double v : values) sum += (v - middle) * (v - middle);
  return std::sqrt(sum / static_cast<double>(values.size() - 1));
}

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

namespace {

std::string plus_minus(const std::vector<double>& values, const Measure& measure) {
  auto text = format_number(measure.scale * mean(values), measure.format);
  if (values.size() > 1)
    text += " ± " + format_number(measure.scale * deviation(values), measure.format);
  return text;
}

std::string merge_text(const ComparedMethod& m) {
  return m.merge ? format_number(*m.merge, "%.1e") : "no";
}

std::string kib(double bytes) { return format_number(bytes / 1024, "%.1f"); }

std::vector<std::vector<std::string>> cells(const Measures& measures,
                                            const std::vector<ComparedMethod>& methods) {
  std::vector<std::vector<std::string>> rows{
      {"method", measures.first.column, measures.second.column, "trained", "ms a step", "× frozen",
       "peak MiB", "adapter KiB", "merged differs by", "learning rate", "steps"}};
  for (const auto& m : methods) {
    if (m.first.empty()) continue;
    rows.push_back({m.name, plus_minus(m.first, measures.first),
                    plus_minus(m.second, measures.second), format_number(m.trainable, "%.0f"),
                    format_number(m.step_ms, m.step_ms < 10 ? "%.2f" : "%.0f"),
                    format_number(m.over_frozen, "%.2f"), format_number(m.peak_mib, "%.0f"),
                    kib(m.bytes), merge_text(m), format_number(mean(m.learning_rates), "%g"),
                    format_number(m.steps, "%.0f")});
  }
  return rows;
}

std::string problems(const std::vector<ComparedMethod>& methods) {
  std::string text;
  for (const auto& m : methods)
    if (!m.problem.empty()) text += concat("- ", m.name, ": ", m.problem, "\n");
  return text;
}

std::string csv(const Measures& measures, const std::vector<ComparedMethod>& methods) {
  std::string text = concat("method,seeds,", measures.first.key, ",", measures.first.key,
                            "_deviation,", measures.second.key,
                            ",trainable,step_ms,over_frozen,peak_mib,adapter_bytes,merge_max_rel,"
                            "learning_rate,steps,problem\n");
  for (const auto& m : methods) {
    const auto number = [](double value) { return format_number(value, "%.6g"); };
    const std::string fields[] = {m.name,
                                  std::to_string(m.first.size()),
                                  number(mean(m.first)),
                                  number(deviation(m.first)),
                                  number(mean(m.second)),
                                  format_number(m.trainable, "%.0f"),
                                  number(m.step_ms),
                                  number(m.over_frozen),
                                  number(m.peak_mib),
                                  format_number(m.bytes, "%.0f"),
                                  m.merge ? number(*m.merge) : "",
                                  number(mean(m.learning_rates)),
                                  format_number(m.steps, "%.0f"),
                                  m.problem};
    bool first = true;
    for (const auto& field : fields) {
      text += (first ? "" : ",") + csv_field(field);
      first = false;
    }
    text += "\n";
  }
  return text;
}

Figure scatter(const Measure& measure, const std::string& title, const std::string& x_label,
               bool log_x, const std::vector<ComparedMethod>& methods, double ComparedMethod::*x) {
  Figure figure;
  figure.title = title;
  figure.y_label = measure.column;
  figure.x_label = x_label;
  figure.log_x = log_x;
  for (const auto& m : methods)
    if (!m.first.empty() && m.*x > 0)
      figure.points.push_back({m.*x, measure.scale * mean(m.first), m.name});
  return figure;
}

}  // namespace

std::string comparison_markdown(const Measures& measures,
                                const std::vector<ComparedMethod>& methods) {
  const auto rows = cells(measures, methods);
  std::string text;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    for (const auto& cell : rows[r]) text += "| " + cell + " ";
    text += "|\n";
    if (r > 0) continue;
    for (std::size_t c = 0; c < rows[0].size(); ++c) text += c == 0 ? "|---" : "|---:";
    text += "|\n";
  }
  const std::string rest = problems(methods);
  return rest.empty() ? text : concat(text, "\nNot compared:\n\n", rest);
}

void write_comparison(const std::filesystem::path& folder, const std::string& title,
                      const Measures& measures, std::vector<ComparedMethod> methods,
                      const std::vector<std::pair<std::string, std::string>>& settings) {
  const bool rising = measures.first.lower_is_better;
  std::stable_sort(methods.begin(), methods.end(), [&](const auto& a, const auto& b) {
    return rising ? mean(a.first) < mean(b.first) : mean(a.first) > mean(b.first);
  });
  graft::io::write_file_atomically(
      folder / "table.md", concat("# ", title, "\n\n", comparison_markdown(measures, methods)));
  graft::io::write_file_atomically(folder / "table.csv", csv(measures, methods));
  Report report;
  report.title = title;
  report.tables.push_back({"Methods", cells(measures, methods)});
  report.figures = {scatter(measures.first, "Against trained parameters", "trained parameters",
                            true, methods, &ComparedMethod::trainable),
                    scatter(measures.first, "Against time", "time of a step over a frozen pass",
                            false, methods, &ComparedMethod::over_frozen)};
  if (const auto rest = problems(methods); !rest.empty()) report.samples = {{"Not compared", rest}};
  report.settings = settings;
  write_report(folder / "table.html", report);
}

}  // namespace cli
