#include "graft/text/table.hpp"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

namespace {

using Catch::Contains;
using graft::text::parse_table;
using graft::text::Table;
using graft::text::TableFormat;
using Strings = std::vector<std::string>;

Table csv(const std::string& text, bool header = true) {
  return parse_table(text, "t.csv", TableFormat::csv, header);
}

}  // namespace

TEST_CASE("Quoted fields may hold commas, quotes and line breaks") {
  const Table table =
      csv("\xEF\xBB\xBFtext,label\r\n\"a, \"\"b\"\"\nc\",1\r\n\r\nplain,\"\"\n\"\",x");
  CHECK(table.columns == Strings{"text", "label"});
  REQUIRE(table.rows.size() == 3);
  CHECK(table.rows[0].fields == Strings{"a, \"b\"\nc", "1"});
  CHECK(table.rows[1].fields == Strings{"plain", ""});
  CHECK(table.rows[2].fields == Strings{"", "x"});
  CHECK(table.rows[0].line == 2);
  CHECK(table.rows[1].line == 5);
  CHECK(table.column("label") == 1);
}

TEST_CASE("Quotes mean nothing in tab-separated values") {
  const Table table =
      parse_table("id\ttext\n1\tsay \"hi\"\n2\t\"open\n", "t.tsv", TableFormat::tsv);
  CHECK(table.rows[0].fields == Strings{"1", "say \"hi\""});
  CHECK(table.rows[1].fields == Strings{"2", "\"open"});
}

TEST_CASE("Columns without names are numbered") {
  const Table table = parse_table("a\t1\nb\t2\n", "t.tsv", TableFormat::tsv, false);
  CHECK(table.columns == Strings{"1", "2"});
  CHECK(table.rows.size() == 2);
}

TEST_CASE("Bad lines are named") {
  CHECK_THROWS_WITH(csv("a,b\n1,2\n1\n"), Contains("t.csv:3") && Contains("expected 2"));
  CHECK_THROWS_WITH(csv("a,b\n1,2\n\"x\ny,1\n"), Contains("t.csv:3") && Contains("quote"));
  CHECK_THROWS_WITH(csv("a,b\n\"x\"y,1\n"), Contains("t.csv:2"));
  CHECK_THROWS_WITH(csv("a,b\n\xFF,1\n"), Contains("t.csv:2") && Contains("UTF-8"));
  CHECK_THROWS_WITH(csv("a,a\n1,2\n"), Contains("'a'"));
  CHECK_THROWS_WITH(csv("a,b\n"), Contains("no rows"));
  CHECK_THROWS_WITH(csv(""), Contains("no rows"));
  CHECK_THROWS_WITH(csv("a,b\n1,2\n").column("label"), Contains("'label'") && Contains("a, b"));
}

TEST_CASE("JSON lines become rows of the asked columns") {
  const std::string text =
      "{\"t\": \"x\", \"n\": 3, \"more\": []}\n\n{\"n\": true, \"t\": \"y\"}\n";
  const Table table = graft::text::table_from_json_lines(text, "t.jsonl", {"t", "n"});
  REQUIRE(table.rows.size() == 2);
  CHECK(table.rows[0].fields == Strings{"x", "3"});
  CHECK(table.rows[1].fields == Strings{"y", "true"});
  CHECK(table.rows[1].line == 3);
  CHECK_THROWS_WITH(graft::text::table_from_json_lines(text, "t.jsonl", {"label"}),
                    Contains("t.jsonl:1") && Contains("label"));
  CHECK_THROWS_WITH(graft::text::table_from_json_lines(text, "t.jsonl", {"more"}),
                    Contains("more"));
}

TEST_CASE("Rows put together from random fields come back") {
  std::uint64_t state = 1;
  const auto draw = [&](std::uint64_t bound) {
    state = state * 6364136223846793005ULL + 1442695040888963407ULL;
    return (state >> 33) % bound;
  };
  for (int round = 0; round < 200; ++round) {
    std::vector<Strings> rows(1 + draw(4), Strings(2 + draw(3)));
    const std::size_t columns = rows[0].size();
    std::string text;
    for (std::size_t c = 1; c <= columns; ++c) text += (c > 1 ? ",c" : "c") + std::to_string(c);
    text += "\n";
    for (Strings& row : rows) {
      row.resize(columns);
      for (std::size_t c = 0; c < columns; ++c) {
        for (std::uint64_t n = draw(6); n > 0; --n) row[c] += "ab,\"\n\r x"[draw(8)];
        std::string quoted = "\"";
        for (const char byte : row[c]) quoted += byte == '"' ? "\"\"" : std::string(1, byte);
        text += (c > 0 ? "," : "") + quoted + "\"";
      }
      text += draw(2) == 0 ? "\n" : "\r\n";
    }
    const Table table = csv(text);
    REQUIRE(table.rows.size() == rows.size());
    for (std::size_t i = 0; i < rows.size(); ++i) REQUIRE(table.rows[i].fields == rows[i]);
  }
}

TEST_CASE("Files are tables by their extension") {
  for (const char* name : {"a.csv", "b.TSV", "c.tab", "d.jsonl", "e.ndjson", "f.json"})
    CHECK(graft::text::is_table(name));
  for (const char* name : {"a.txt", "csv", "a.csv.gz"}) CHECK_FALSE(graft::text::is_table(name));
}
