#include "report.hpp"

#include <stdlib.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "command.hpp"
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

/// Text for a gnuplot string in double quotes, without its markup.
std::string quoted(const std::string& text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') result += '\\';
    result += c == '\n' ? ' ' : c;
  }
  return result + "\"";
}

/// The points that no other one beats, from left to right.
std::vector<NamedPoint> front_of(std::vector<NamedPoint> points) {
  std::sort(points.begin(), points.end(), [](const NamedPoint& a, const NamedPoint& b) {
    return a.x != b.x ? a.x < b.x : a.y > b.y;
  });
  std::vector<NamedPoint> front;
  for (const auto& p : points)
    if (front.empty() || p.y > front.back().y) front.push_back(p);
  return front;
}

std::string points_script(const Figure& figure) {
  if (figure.points.empty()) return "";
  std::ostringstream out;
  const auto list = [&](const char* name, const std::vector<NamedPoint>& points) {
    out << name << " << EOD\n";
    for (const auto& p : points) out << p.x << ' ' << p.y << ' ' << quoted(p.name) << '\n';
    out << "EOD\n";
  };
  list("$points", figure.points);
  list("$front", front_of(figure.points));
  out << "unset key\nset offsets graph 0.02, graph 0.15, graph 0.08, graph 0.05\n"
      << "plot $front using 1:2 with steps linewidth 1 linecolor rgb '#bbbbbb', "
         "$points using 1:2:3 with labels noenhanced point pointtype 7 pointsize 0.5 left "
         "offset char 0.6,0.2 font ',9' textcolor rgb '#333333'\n";
  return out.str();
}

/// A gnuplot script that writes out.svg; empty if there is nothing to draw.
std::string script_of(const Figure& figure, int number) {
  std::ostringstream out;
  out << "set terminal svg size 760," << (figure.points.empty() ? 300 : 460)
      << " dynamic font 'sans,12' name 'figure" << number << "'\n"
      << (figure.log_x ? "set logscale x\n" : "") << "set output 'out.svg'\nset xlabel "
      << quoted(figure.x_label) << "\nset ylabel '" << figure.y_label << "'\n"
      << "set grid linecolor rgb '#dddddd'\nset border 3\nset xtics nomirror\nset ytics nomirror\n"
      << "set key top right\nset linetype 1 linecolor rgb '#1f77b4'\n"
      << "set linetype 2 linecolor rgb '#d62728'\n";
  if (!figure.points.empty()) return out.str() + points_script(figure);
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

std::string table(const ReportTable& from) {
  std::string html = "<h2>" + escaped(from.title) + "</h2>\n<table class=\"grid\">\n";
  for (std::size_t r = 0; r < from.rows.size(); ++r) {
    html += "<tr>";
    for (std::size_t c = 0; c < from.rows[r].size(); ++c) {
      const char* tag = r == 0 || c == 0 ? "th" : "td";
      html += concat("<", tag, ">", escaped(from.rows[r][c]), "</", tag, ">");
    }
    html += "</tr>\n";
  }
  return html + "</table>\n";
}

constexpr const char* kStyle =
    "body{font:15px/1.5 sans-serif;max-width:820px;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse}"
    "th{text-align:left;font-weight:600;padding:.2em 1.5em .2em 0;vertical-align:top}"
    "td{padding:.2em 0;overflow-wrap:anywhere}"
    ".grid td{text-align:right;padding:.2em .8em;overflow-wrap:normal}"
    "pre{background:#f4f4f4;padding:.8em;white-space:pre-wrap}svg{max-width:100%;height:auto}";

}  // namespace

std::string percent(double share) { return format_number(100 * share, "%.1f %%"); }

void write_report(const fs::path& path, const Report& report) {
  std::string html = concat(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
      "<meta name=\"viewport\" content=\"width=device-width\"><title>",
      escaped(report.title), "</title>\n<style>", kStyle, "</style></head>\n<body>\n<h1>",
      escaped(report.title), "</h1>\n", table(report.results));
  for (const auto& from : report.tables) html += table(from);
  int number = 0;
  for (const auto& figure : report.figures) {
    const std::string svg = drawn(figure, ++number);
    html += "<h2>" + escaped(figure.title) + "</h2>\n";
    html += svg.empty() ? "<p>Not drawn: the program gnuplot is not installed.</p>\n" : svg + "\n";
  }
  for (const auto& [name, text] : report.samples)
    html += "<h2>" + escaped(name) + "</h2><pre>" + escaped(text) + "</pre>\n";
  html += "<h2>Settings</h2>\n" + table(report.settings) + "</body></html>\n";
  if (!path.parent_path().empty()) fs::create_directories(path.parent_path());
  graft::io::write_file_atomically(path, html);
}

}  // namespace cli
