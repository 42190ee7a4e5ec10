#include "report.hpp"

#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "graft/base/error.hpp"
#include "graft/io/atomic_file.hpp"

namespace cli {
namespace {

namespace fs = std::filesystem;

std::string escaped(const std::string& text) {
  std::string result;
  for (char c : text) {
    if (c == '<')
      result += "&lt;";
    else if (c == '>')
      result += "&gt;";
    else if (c == '&')
      result += "&amp;";
    else if (c == '"')
      result += "&quot;";
    else
      result += c;
  }
  return result;
}

/// An SVG drawing of the curves by gnuplot; an empty text if it cannot be had.
std::string drawn(const std::vector<Curve>& curves, const std::string& y_label) {
  const fs::path base =
      fs::temp_directory_path() / graft::concat("graft-plot-", static_cast<long>(::getpid()));
  const fs::path script = base.string() + ".gp", svg = base.string() + ".svg";
  {
    std::ofstream out(script);
    out << "set terminal svg size 760,320 dynamic font 'sans,12'\nset output '" << svg.string()
        << "'\n"
        << "set xlabel 'step'\nset ylabel '" << y_label << "'\nset grid\nset key top right\n";
    for (std::size_t i = 0; i < curves.size(); ++i) {
      out << "$c" << i << " << EOD\n";
      for (const auto& [x, y] : curves[i].points) out << x << ' ' << y << '\n';
      out << "EOD\n";
    }
    out << "plot ";
    for (std::size_t i = 0; i < curves.size(); ++i)
      out << (i == 0 ? "" : ", ") << "$c" << i << " with "
          << (curves[i].points.size() < 30 ? "linespoints" : "lines") << " linewidth 2 title '"
          << curves[i].name << "'";
    out << '\n';
  }
  std::string drawing;
  if (std::system(("gnuplot '" + script.string() + "' >/dev/null 2>&1").c_str()) == 0) {
    std::ifstream in(svg);
    std::stringstream text;
    text << in.rdbuf();
    drawing = text.str();
    const auto start = drawing.find("<svg");
    drawing = start == std::string::npos ? "" : drawing.substr(start);
  }
  std::error_code ignored;
  fs::remove(script, ignored);
  fs::remove(svg, ignored);
  return drawing;
}

std::string table(const std::vector<std::pair<std::string, std::string>>& rows) {
  std::string html = "<table>";
  for (const auto& [name, value] : rows)
    html += "<tr><th>" + escaped(name) + "</th><td>" + escaped(value) + "</td></tr>";
  return html + "</table>\n";
}

std::string figure(const std::vector<Curve>& curves, const std::string& label) {
  const std::string svg = drawn(curves, label);
  return svg.empty()
             ? "<p>No drawing of the " + label + ": the program gnuplot is not installed.</p>\n"
             : svg + "\n";
}

}  // namespace

void write_report(const fs::path& path, const Report& report) {
  std::string html = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>" +
                     escaped(report.title) +
                     "</title><style>body{font:15px/1.5 sans-serif;max-width:820px;margin:2em "
                     "auto;padding:0 1em;color:#222}"
                     "table{border-collapse:collapse}th{text-align:left;font-weight:600;padding:."
                     "2em 1.5em .2em 0;vertical-align:top}"
                     "td{padding:.2em "
                     "0}pre{background:#f4f4f4;padding:.8em;white-space:pre-wrap}svg{max-width:100%"
                     "}</style></head><body>\n<h1>" +
                     escaped(report.title) + "</h1>\n";
  html += table(report.results);
  html += "<h2>Loss</h2>\n" + figure(report.losses, "loss");
  html += "<h2>Throughput</h2>\n" + figure(report.throughput, "tokens per second");
  html += "<h2>Samples</h2>\n";
  for (const auto& [name, text] : report.samples)
    html += "<h3>" + escaped(name) + "</h3><pre>" + escaped(text) + "</pre>\n";
  html += "<h2>Settings</h2>\n" + table(report.settings) + "</body></html>\n";
  graft::io::write_file_atomically(path, std::as_bytes(std::span(html)));
}

}  // namespace cli
