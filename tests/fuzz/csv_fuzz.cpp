// Any bytes as comma- or tab-separated values: refused, or rows that are the same when they are
// written and read again.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "graft/text/table.hpp"

namespace {

using graft::text::Table;
using graft::text::TableFormat;

void write_row(std::string& out, const std::vector<std::string>& fields) {
  bool first = true;
  for (const auto& field : fields) {
    out += first ? "\"" : ",\"";
    for (const char c : field) out += c == '"' ? std::string("\"\"") : std::string(1, c);
    out += '"';
    first = false;
  }
  out += '\n';
}

void check(const Table& table) {
  std::string again;
  write_row(again, table.columns);
  for (const auto& row : table.rows) {
    if (row.fields.size() != table.columns.size() || row.line < 1) __builtin_trap();
    write_row(again, row.fields);
  }
  // A row of one empty field is an empty line, and those are skipped.
  if (table.columns.size() == 1) return;
  const Table read = graft::text::parse_table(again, "again", TableFormat::csv);
  if (read.columns != table.columns || read.rows.size() != table.rows.size()) __builtin_trap();
  for (std::size_t i = 0; i < read.rows.size(); ++i)
    if (read.rows[i].fields != table.rows[i].fields) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const TableFormat format : {TableFormat::csv, TableFormat::tsv})
    for (const bool header : {true, false}) {
      try {
        check(graft::text::parse_table(text, "table", format, header));
      } catch (const graft::Error&) {
      }
    }
  return 0;
}
