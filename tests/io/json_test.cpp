#include "graft/io/json.hpp"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

#include "temporary_folder.hpp"

namespace {

using graft::Index;
using graft::IoError;
using graft::io::Json;
using graft::io::JsonView;

const std::string kText = R"({
  "r": 8, "alpha": 16.0, "half": 0.5, "big": 18446744073709551615, "huge": 1e300, "yes": true,
  "name": "LORA", "nothing": null, "list": ["q_proj", "v_proj"], "sizes": [1, 2, 3],
  "nested": {"a": [{"b": "x"}, {"b": 3}]}
})";

}  // namespace

TEST_CASE("a view reads values and knows where it is") {
  const Json document = graft::io::parse_json(kText, "config.json");
  const JsonView view(document, "config.json");
  CHECK(view.at("r").integer() == 8);
  CHECK(view.at("alpha").integer() == 16);
  CHECK(view.at("half").number() == 0.5);
  CHECK(view.at("r").number() == 8.0);
  CHECK(view.at("yes").boolean());
  CHECK(view.at("name").string() == "LORA");
  CHECK(view.at("list").strings() == std::vector<std::string>{"q_proj", "v_proj"});
  CHECK(view.at("sizes").integers(1, 3) == std::vector<std::int64_t>{1, 2, 3});
  CHECK(view.at("sizes").numbers() == std::vector<double>{1.0, 2.0, 3.0});
  CHECK(view.at("nested").at("a").elements()[1].at("b").path() == "nested.a[1].b");
  CHECK(view.members().size() == 11);
  CHECK(view.at("nothing").is_null());
  CHECK_FALSE(view.has("nothing"));
  CHECK_FALSE(view.has("absent"));
  CHECK_FALSE(view.find("nothing").has_value());
}

TEST_CASE("defaults stand for absent and null fields only") {
  const Json document = graft::io::parse_json(kText, "config.json");
  const JsonView view(document, "config.json");
  CHECK(view.integer_or("absent", 3) == 3);
  CHECK(view.integer_or("nothing", 3) == 3);
  CHECK(view.integer_or("r", 3) == 8);
  CHECK(view.number_or("absent", 0.25) == 0.25);
  CHECK(view.boolean_or("absent", true));
  CHECK(view.string_or("absent", "none") == "none");
  CHECK(view.strings_or("absent", {"a"}) == std::vector<std::string>{"a"});
  CHECK_THROWS_AS(view.integer_or("name", 3), IoError);
  CHECK_THROWS_AS(view.boolean_or("r", true), IoError);
  CHECK_THROWS_AS(view.string_or("r", ""), IoError);
  CHECK_THROWS_AS(view.strings_or("sizes", {}), IoError);
}

TEST_CASE("complaints name the file and the field") {
  const Json document = graft::io::parse_json(kText, "config.json");
  const JsonView view(document, "config.json");
  CHECK_THROWS_WITH(view.at("rank"), Catch::StartsWith("config.json: key 'rank' is missing"));
  CHECK_THROWS_WITH(view.at("nested").at("a").elements()[1].at("b").string(),
                    "config.json: field 'nested.a[1].b': expected a string, found 3");
  CHECK_THROWS_WITH(view.at("half").integer(), Catch::Contains("field 'half'"));
  CHECK_THROWS_WITH(view.at("r").integer(1, 4), Catch::Contains("from 1 to 4, found 8"));
  CHECK_THROWS_WITH(view.at("big").integer(), Catch::Contains("64 bits"));
  CHECK_THROWS_WITH(view.at("huge").integer(), Catch::Contains("whole number"));
  CHECK_THROWS_WITH(view.at("name").elements(),
                    Catch::Contains("expected an array, found \"LORA\""));
  CHECK_THROWS_WITH(view.at("name").at("x"), Catch::Contains("expected an object"));
  CHECK_THROWS_WITH(view.at("list").members(),
                    Catch::Contains("expected an object, found an array"));
  CHECK_THROWS_WITH(view.at("nothing").number(), Catch::Contains("found null"));
}

TEST_CASE("JSON that is not well-formed is refused") {
  for (const char* text : {"", "{", "{\"a\":1,}", "[1 2]", "nul", "{\"a\":NaN}", "\"\xFF\"",
                           "\"\xED\xA0\x80\"", "{} {}", "'a'"}) {
    CAPTURE(text);
    CHECK_THROWS_AS(graft::io::parse_json(text, "x.json"), IoError);
    CHECK_THROWS_WITH(graft::io::parse_json(text, "x.json"), Catch::StartsWith("x.json: "));
  }
  CHECK_THROWS_WITH(graft::io::parse_json(R"({"a":{"b":1,"b":2}})", "x.json"),
                    Catch::Contains("'b' appears twice"));
  CHECK(graft::io::parse_json(R"({"a":1,"b":{"a":2}})", "x.json").size() == 2);
  CHECK(graft::io::parse_json(R"({"b":1,"b":2})", "x.json", {.allow_duplicates = true})["b"] == 2);
}

TEST_CASE("nesting is limited before it can exhaust the stack") {
  const std::string deep = std::string(1000000, '[');
  CHECK_THROWS_WITH(graft::io::parse_json(deep, "x.json"),
                    Catch::Contains("nested deeper than 64"));
  const auto nested = [](int depth) {
    return std::string(static_cast<std::size_t>(depth), '[') +
           std::string(static_cast<std::size_t>(depth), ']');
  };
  CHECK_NOTHROW(graft::io::parse_json(nested(64), "x.json"));
  CHECK_THROWS_AS(graft::io::parse_json(nested(65), "x.json"), IoError);
  CHECK_THROWS_AS(graft::io::parse_json(nested(4), "x.json", {.depth = 3}), IoError);
}

TEST_CASE("JSON lines are read one object a line") {
  const std::string text = "\xEF\xBB\xBF{\"a\":1}\n\n  \t\r\n{\"a\":2}\r\n{\"a\":3}";
  std::vector<std::pair<Index, std::int64_t>> seen;
  graft::io::for_each_json_line(text, "d.jsonl", [&](const JsonView& view, Index line) {
    seen.emplace_back(line, view.at("a").integer());
  });
  CHECK(seen == std::vector<std::pair<Index, std::int64_t>>{{1, 1}, {4, 2}, {5, 3}});
  const auto read = [](std::string_view lines) {
    graft::io::for_each_json_line(lines, "d.jsonl",
                                  [](const JsonView& view, Index) { view.at("a").integer(); });
  };
  CHECK_NOTHROW(read(""));
  CHECK_NOTHROW(read("\n\n"));
  CHECK_THROWS_WITH(read("{\"a\":1}\n{\"a\":"), Catch::StartsWith("d.jsonl:2: "));
  CHECK_THROWS_WITH(read("{\"a\":1}\n\n[1]\n"),
                    Catch::StartsWith("d.jsonl:3: ") && Catch::Contains("one JSON object a line"));
  CHECK_THROWS_WITH(read("{\"a\":\"x\"}"), Catch::StartsWith("d.jsonl:1: field 'a'"));
  CHECK_THROWS_AS(read("{\"a\":1} {\"a\":2}\n"), IoError);
}

TEST_CASE("JSON files are read by name and written as text") {
  graft_test::TemporaryFolder folder;
  graft_test::write_text(folder / "a.json", R"({"b":[1,2],"a":"x"})");
  const Json document = graft::io::read_json(folder / "a.json");
  CHECK(graft::io::json_text(document, -1) == R"({"a":"x","b":[1,2]})");
  CHECK(graft::io::json_text(document) == "{\n  \"a\": \"x\",\n  \"b\": [\n    1,\n    2\n  ]\n}");
  CHECK_THROWS_AS(graft::io::json_text("\xFF"), graft::ValueError);
  CHECK_THROWS_WITH(graft::io::read_json(folder / "none.json"), Catch::Contains("none.json"));
  CHECK_THROWS_AS(graft::io::read_json(folder.path()), IoError);
}
