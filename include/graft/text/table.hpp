#pragma once

#include <algorithm>
#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graft/base/error.hpp"
#include "graft/base/types.hpp"
#include "graft/io/json.hpp"
#include "graft/io/mapped_file.hpp"
#include "graft/io/utf8.hpp"

namespace graft::inline v0_1::text {

struct TableRow {
  Index line = 0;  ///< in the file, from 1
  std::vector<std::string> fields;
};

/// Rows with named columns.
struct Table {
  std::string source;  ///< name of the file, for messages
  std::vector<std::string> columns;
  std::vector<TableRow> rows;

  /// Place of a column. Errors: IoError that lists the columns.
  std::size_t column(std::string_view name) const {
    const auto found = std::find(columns.begin(), columns.end(), name);
    if (found != columns.end()) return static_cast<std::size_t>(found - columns.begin());
    std::string names;
    for (const std::string& known : columns) names += concat(names.empty() ? "" : ", ", known);
    throw IoError(concat(source, ": no column '", name, "'; columns: ", names));
  }
  [[noreturn]] void fail(const TableRow& row, std::string_view complaint) const {
    throw IoError(concat(source, ":", row.line, ": ", complaint));
  }
};

enum class TableFormat { csv, tsv };

/// Reads comma-separated values by RFC 4180 (fields in double quotes may hold commas, line breaks
/// and doubled quotes), or tab-separated ones, where quotes mean nothing. Line breaks are LF or
/// CRLF; a byte order mark and empty lines are skipped.
/// @param header  the first line names the columns; otherwise they are called 1, 2, …
/// Errors: IoError with file and line: bytes that are not UTF-8, an open quote, text after a
/// closing quote, a row with another number of fields, columns named alike, no rows.
inline Table parse_table(std::string_view text, std::string_view source, TableFormat format,
                         bool header = true) {
  Table table;
  table.source = source;
  text = io::without_byte_order_mark(text);
  const char separator = format == TableFormat::csv ? ',' : '\t';
  Index line = 1;
  std::size_t at = 0;
  const auto fail = [&](Index where, std::string_view complaint) {
    throw IoError(concat(source, ":", where, ": ", complaint));
  };
  const auto line_ends = [&] {
    return at >= text.size() || text[at] == '\n' || text.substr(at, 2) == "\r\n";
  };
  bool named = false;
  while (at < text.size()) {
    TableRow row;
    row.line = line;
    while (true) {
      std::string field;
      if (format == TableFormat::csv && at < text.size() && text[at] == '"') {
        const Index opened = line;
        for (++at;; ++at) {
          if (at >= text.size()) fail(opened, "a quote is opened and not closed");
          if (text[at] == '"') {
            if (text.substr(at, 2) != "\"\"") break;
            ++at;
          }
          line += text[at] == '\n' ? 1 : 0;
          field.push_back(text[at]);
        }
        ++at;
        if (!line_ends() && text[at] != separator) fail(line, "text after a closing quote");
      } else {
        const std::size_t begin = at;
        while (!line_ends() && text[at] != separator) ++at;
        field = text.substr(begin, at - begin);
      }
      if (!io::is_utf8(field)) fail(line, "not UTF-8");
      row.fields.push_back(std::move(field));
      if (line_ends()) break;
      ++at;
    }
    at += at < text.size() && text[at] == '\r' ? 2 : 1;
    ++line;
    if (row.fields.size() == 1 && row.fields[0].empty()) continue;
    if (!named) {
      named = true;
      if (header) {
        table.columns = std::move(row.fields);
        auto sorted = table.columns;
        std::sort(sorted.begin(), sorted.end());
        const auto twice = std::adjacent_find(sorted.begin(), sorted.end());
        if (twice != sorted.end()) fail(row.line, concat("two columns are named '", *twice, "'"));
        continue;
      }
      for (std::size_t i = 1; i <= row.fields.size(); ++i)
        table.columns.push_back(std::to_string(i));
    }
    if (row.fields.size() != table.columns.size()) {
      fail(row.line, concat(row.fields.size(), " fields; expected ", table.columns.size()));
    }
    table.rows.push_back(std::move(row));
  }
  if (table.rows.empty()) throw IoError(concat(source, ": no rows"));
  return table;
}

/// Rows of a JSON-lines text as a table of the given columns. Numbers and booleans become their
/// JSON text. Errors: IoError with file and line, also when a row lacks a column.
inline Table table_from_json_lines(std::string_view text, std::string_view source,
                                   const std::vector<std::string>& columns) {
  Table table;
  table.source = source;
  table.columns = columns;
  io::for_each_json_line(text, source, [&](const io::JsonView& view, Index line) {
    TableRow row;
    row.line = line;
    for (const std::string& column : columns) {
      const io::JsonView field = view.at(column);
      if (field.is_string()) {
        row.fields.push_back(field.string());
      } else if (field.is_number() || field.is_boolean()) {
        row.fields.push_back(io::json_text(field.json(), -1));
      } else {
        field.fail("expected a string, a number, true or false");
      }
    }
    table.rows.push_back(std::move(row));
  });
  if (table.rows.empty()) throw IoError(concat(source, ": no rows"));
  return table;
}

namespace detail {

inline std::string lower_extension(const std::filesystem::path& path) {
  std::string extension = path.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return extension;
}

}  // namespace detail

/// True for a file that is a table by its extension; .txt may be one, or plain text.
inline bool is_table(const std::filesystem::path& path) {
  const std::string extension = detail::lower_extension(path);
  for (const char* known : {".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".json"})
    if (extension == known) return true;
  return false;
}

/// Reads a table by its file's extension: .csv, .tsv or .tab, .jsonl or .ndjson or .json (one
/// object a line). @param columns  those that will be asked for
inline Table read_table(const std::filesystem::path& path, const std::vector<std::string>& columns,
                        bool header = true) {
  const std::string extension = detail::lower_extension(path);
  const std::string text = io::read_file(path);
  if (extension == ".jsonl" || extension == ".ndjson" || extension == ".json")
    return table_from_json_lines(text, path.string(), columns);
  if (extension == ".tsv" || extension == ".tab" || extension == ".txt")
    return parse_table(text, path.string(), TableFormat::tsv, header);
  if (extension == ".csv") return parse_table(text, path.string(), TableFormat::csv, header);
  throw IoError(concat("'", path.string(), "': expected a .csv, .tsv or .jsonl file"));
}

}  // namespace graft::inline v0_1::text
