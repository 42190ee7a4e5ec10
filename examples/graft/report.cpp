#include "report.hpp"

#include <stdlib.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

#include "graft/base/error.hpp"
#include "graft/io/atomic_file.hpp"
#include "graft/io/mapped_file.hpp"

namespace cli {
namespace {

namespace fs = std::filesystem;
using graft::concat;

std::string escaped(const std::string& text) {
  std::string result;
  for (const char c : text) {
    switch (c) {
      case '<':
        result += "&lt;";
        break;
      case '>':
        result += "&gt;";
        break;
      case '&':
        result += "&amp;";
        break;
      case '"':
        result += "&quot;";
        break;
      default:
        result += c;
    }
  }
  return result;
}

/// A folder of our own below the one for temporary files, removed at the end.
class Workplace {
 public:
  Workplace() {
    std::string pattern = (fs::temp_directory_path() / "graft-plot-XXXXXX").string();
    if (::mkdtemp(pattern.data()) != nullptr) path_ = pattern;
  }
  ~Workplace() {
    std::error_code ignored;
    if (!path_.empty()) fs::remove_all(path_, ignored);
  }
  Workplace(const Workplace&) = delete;
  Workplace& operator=(const Workplace&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

/// A gnuplot script that writes out.svg; empty if there is nothing to draw.
std::string script_of(const Figure& figure, int number) {
  std::ostringstream out;
  out << "set terminal svg size 760,300 dynamic font 'sans,12' name 'figure" << number << "'\n"
      << "set output 'out.svg'\nset xlabel 'step'\nset ylabel '" << figure.y_label << "'\n"
      << "set grid linecolor rgb '#dddddd'\nset border 3\nset xtics nomirror\nset ytics nomirror\n"
      << "set key top right\nset linetype 1 linecolor rgb '#1f77b4'\n"
      << "set linetype 2 linecolor rgb '#d62728'\n";
  std::string plots;
  for (std::size_t i = 0; i < figure.curves.size(); ++i) {
    const auto& curve = figure.curves[i];
    if (curve.points.empty()) continue;
    out << "$c" << i << " << EOD\n";
    for (const auto& [x, y] : curve.points) out << x << ' ' << y << '\n';
    out << "EOD\n";
    const char* style =
        curve.points.size() < 30 ? "linespoints pointtype 7 pointsize 0.4" : "lines";
    plots += concat(plots.empty() ? "plot " : ", ", "$c", i, " with ", style,
                    " linewidth 1.5 linetype ", i + 1, " title '", curve.name, "'");
  }
  out << plots << '\n';
  return plots.empty() ? "" : out.str();
}

/// The drawing as SVG; an empty text if there is nothing to draw or no gnuplot.
std::string drawn(const Figure& figure, int number) {
  const std::string script = script_of(figure, number);
  const Workplace place;
  if (script.empty() || place.path().empty()) return "";
  std::ofstream(place.path() / "plot.gp") << script;
  const std::string command =
      concat("cd '", place.path().string(), "' && gnuplot plot.gp >/dev/null 2>&1");
  const fs::path svg = place.path() / "out.svg";
  if (std::system(command.c_str()) != 0 || !fs::exists(svg)) return "";
  const std::string text = graft::io::read_file(svg);
  const auto start = text.find("<svg");
  return start == std::string::npos ? "" : text.substr(start);
}

std::string table(const std::vector<std::pair<std::string, std::string>>& rows) {
  std::string html = "<table>\n";
  for (const auto& [name, value] : rows)
    html += "<tr><th>" + escaped(name) + "</th><td>" + escaped(value) + "</td></tr>\n";
  return html + "</table>\n";
}

constexpr const char* kStyle =
    "body{font:15px/1.5 sans-serif;max-width:820px;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse}"
    "th{text-align:left;font-weight:600;padding:.2em 1.5em .2em 0;vertical-align:top}"
    "td{padding:.2em 0;overflow-wrap:anywhere}"
    "pre{background:#f4f4f4;padding:.8em;white-space:pre-wrap}svg{max-width:100%;height:auto}";

}  // namespace

void write_report(const fs::path& path, const Report& report) {
  std::string html = concat(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
      "<meta name=\"viewport\" content=\"width=device-width\"><title>",
      escaped(report.title), "</title>\n<style>", kStyle, "</style></head>\n<body>\n<h1>",
      escaped(report.title), "</h1>\n", table(report.results));
  int number = 0;
  for (const auto& figure : report.figures) {
    const std::string svg = drawn(figure, ++number);
    html += "<h2>" + escaped(figure.title) + "</h2>\n";
    html += svg.empty() ? "<p>Not drawn: the program gnuplot is not installed.</p>\n" : svg + "\n";
  }
  if (!report.samples.empty()) html += "<h2>Samples</h2>\n";
  for (const auto& [name, text] : report.samples)
    html += "<h3>" + escaped(name) + "</h3><pre>" + escaped(text) + "</pre>\n";
  html += "<h2>Settings</h2>\n" + table(report.settings) + "</body></html>\n";
  if (!path.parent_path().empty()) fs::create_directories(path.parent_path());
  graft::io::write_file_atomically(path, html);
}

}  // namespace cli
