#include "graft/text/tokenizer_json.hpp"

#include <catch2/catch.hpp>
#include <filesystem>
#include <string>
#include <vector>

#include "graft/io/mapped_file.hpp"

namespace {

namespace fs = std::filesystem;
using graft::IoError;
using graft::io::Json;

Json base() {
  return Json::parse(R"({
    "added_tokens": [{"id": 3, "content": "<s>", "special": true}],
    "normalizer": {"type": "NFC"},
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false},
    "post_processor": {"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A"}}],
      "pair": null, "special_tokens": {"<s>": {"id": "<s>", "ids": [3], "tokens": ["<s>"]}}},
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}
  })");
}

std::string message(const Json& document) {
  try {
    graft::text::tokenizer_from_json(document.dump(), "t.json");
  } catch (const IoError& error) {
    return error.what();
  }
  return "loaded";
}

}  // namespace

TEST_CASE("A small tokenizer.json works as it says") {
  const auto tokenizer = graft::text::tokenizer_from_json(base().dump(), "t.json");
  using Ids = std::vector<std::int32_t>;
  CHECK(tokenizer.encode("abb<s>") == Ids{3, 2, 1, 3});
  CHECK(tokenizer.encode("abb", {.add_special = false}) == Ids{2, 1});
  CHECK(tokenizer.decode(Ids{3, 2, 1}, true) == "abb");
  CHECK(tokenizer.vocab_size() == 4);
}

TEST_CASE("A token that is looked for in normalised text is spelled as it is normalised") {
  auto document = base();
  document["normalizer"] = Json::parse(R"({"type": "Lowercase"})");
  document["added_tokens"].push_back(
      Json::parse(R"({"id": 4, "content": "TOKEN", "special": false, "normalized": true})"));
  document["added_tokens"].push_back(
      Json::parse(R"({"id": 5, "content": "RAW", "special": false, "normalized": false})"));
  const auto tokenizer = graft::text::tokenizer_from_json(document.dump(), "t.json");
  using Ids = std::vector<std::int32_t>;
  const auto ids = tokenizer.encode("aTokenRAW", {.add_special = false});
  CHECK(ids == Ids{0, 4, 5});
  CHECK(tokenizer.decode(ids) == "atokenRAW");
}

TEST_CASE("A special token stays in the text where its normalised spelling is another one") {
  auto document = base();
  document["normalizer"] = Json::parse(R"({"type": "Lowercase"})");
  for (const char* token : {R"({"id": 4, "content": "<X>", "special": true, "normalized": true})",
                            R"({"id": 5, "content": "<y>", "special": true, "normalized": true})",
                            R"({"id": 6, "content": "<Z>", "special": true, "normalized": false})"})
    document["added_tokens"].push_back(Json::parse(token));
  const auto tokenizer = graft::text::tokenizer_from_json(document.dump(), "t.json");
  CHECK(tokenizer.decode(std::vector<std::int32_t>{0, 4, 5, 6, 1}, true) == "a<x>b");
}

TEST_CASE("A token whose blanks went to the token before is found all the same") {
  auto document = base();
  for (const char* token : {R"({"id": 4, "content": "<x>", "special": true, "rstrip": true})",
                            R"({"id": 5, "content": "  ", "special": true, "rstrip": true})",
                            R"({"id": 6, "content": " b", "special": true, "lstrip": true})"})
    document["added_tokens"].push_back(Json::parse(token));
  const auto tokenizer = graft::text::tokenizer_from_json(document.dump(), "t.json");
  using Ids = std::vector<std::int32_t>;
  // As the tokenizers library has it.
  CHECK(tokenizer.encode("a    a", {.add_special = false}) == Ids{0, 5, 5, 0});
  CHECK(tokenizer.encode("<x>  a", {.add_special = false}) == Ids{4, 5, 0});
  CHECK(tokenizer.encode("<x> ba", {.add_special = false}) == Ids{4, 6, 0});

  // Of one that looks to both sides nothing is left.
  document["added_tokens"][2]["lstrip"] = true;
  const auto both = graft::text::tokenizer_from_json(document.dump(), "t.json");
  CHECK(both.encode("a    a", {.add_special = false}) == Ids{0, 5, 0});
}

TEST_CASE("Complaints name the file and the field") {
  const auto broken = [](const char* pointer, const char* value) {
    Json document = base();
    document[Json::json_pointer(pointer)] = Json::parse(value);
    return message(document);
  };
  using Catch::Contains;
  CHECK(message(base()) == "loaded");
  CHECK_THAT(broken("/model/vocab", "{\"a\": -1}"),
             Contains("t.json") && Contains("model.vocab.a"));
  CHECK_THAT(broken("/model/vocab", "{\"a\": 0, \"b\": 0}"), Contains("model.vocab"));
  CHECK_THAT(broken("/model/vocab", "{\"a\": 16000000}"), Contains("out of range"));
  CHECK_THAT(broken("/model/vocab", "[[\"a\"]]"), Contains("model.vocab[0]"));
  CHECK_THAT(broken("/model/vocab", "7"), Contains("model.vocab"));
  CHECK_THAT(broken("/model/merges", "[\"a\"]"), Contains("model.merges[0]"));
  CHECK_THAT(broken("/model/merges", "[[\"a\", \"b\", \"c\"]]"), Contains("model.merges[0]"));
  CHECK_THAT(broken("/model/merges", "[\"a z\"]"), Contains("'z'"));
  CHECK_THAT(broken("/model/type", "\"Magic\""), Contains("Magic") && Contains("WordPiece"));
  CHECK_THAT(broken("/model/dropout", "0.1"), Contains("model.dropout"));
  CHECK_THAT(broken("/model/unk_token", "7"), Contains("model.unk_token"));
  CHECK_THAT(broken("/normalizer/type", "\"Magic\""),
             Contains("field 'normalizer'") && Contains("Magic") && Contains("NFKC"));
  CHECK_THAT(
      broken("/normalizer", R"({"type": "Replace", "pattern": {"Regex": "("}, "content": ""})"),
      Contains("normalizer.pattern.Regex"));
  CHECK_THAT(broken("/normalizer", R"({"type": "Precompiled", "precompiled_charsmap": "AAAA"})"),
             Contains("precompiled_charsmap"));
  CHECK_THAT(broken("/normalizer", R"({"type": "Precompiled", "precompiled_charsmap": "!"})"),
             Contains("base64"));
  CHECK_THAT(broken("/pre_tokenizer",
                    R"({"type": "Split", "pattern": {"String": "x"}, "behavior": "Sideways"})"),
             Contains("pre_tokenizer.behavior"));
  CHECK_THAT(
      broken("/pre_tokenizer",
             R"({"type": "Sequence", "pretokenizers": [{"type": "Digits"}, {"type": "Q"}]})"),
      Contains("pretokenizers[1]"));
  CHECK_THAT(broken("/post_processor/special_tokens", "{}"), Contains("special_tokens"));
  CHECK_THAT(broken("/post_processor/special_tokens/<s>/ids", "[9]"), Contains("ids[0]"));
  CHECK_THAT(broken("/post_processor/single/1/Sequence/id", "\"C\""), Contains("A or B"));
  CHECK_THAT(broken("/decoder/type", "\"Magic\""), Contains("decoder"));
  CHECK_THAT(broken("/added_tokens/0/id", "1"), Contains("added_tokens[0]"));
  CHECK_THAT(broken("/added_tokens/0/content", "3"), Contains("added_tokens[0].content"));
}

TEST_CASE("Missing fields, foreign text and endless nesting are errors") {
  using Catch::Contains;
  Json document = base();
  document.erase("model");
  CHECK_THAT(message(document), Contains("'model' is missing"));
  document = base();
  document["model"].erase("merges");
  CHECK_THAT(message(document), Contains("'merges' is missing"));
  CHECK_THROWS_WITH(graft::text::tokenizer_from_json("not json", "t.json"), Contains("t.json"));
  std::string deep;
  for (int i = 0; i < 5000; ++i) deep += "{\"normalizer\":";
  CHECK_THROWS_WITH(graft::text::tokenizer_from_json(deep, "t.json"), Contains("nested"));
}

TEST_CASE("Old files without types and with unnamed settings load") {
  Json document = base();
  document["model"].erase("type");
  document["pre_tokenizer"].erase("add_prefix_space");  // then a blank is put before
  const auto tokenizer = graft::text::tokenizer_from_json(document.dump(), "t.json");
  CHECK(tokenizer.encode("ab", {.add_special = false}) == std::vector<std::int32_t>{2});
}

TEST_CASE("Files with any one character changed load or complain, and then encode") {
  const fs::path path =
      fs::path(GRAFT_SOURCE_DIR) / "tests" / "cases" / "tokenizer" / "t5" / "tokenizer.json";
  const std::string text = graft::io::read_file(path);
  int loaded = 0;
  for (std::size_t i = 0; i < text.size(); i += 13) {
    std::string changed = text;
    changed[i] = changed[i] == '1' ? '2' : '1';
    try {
      const auto tokenizer = graft::text::tokenizer_from_json(changed, "t.json");
      tokenizer.decode(tokenizer.encode("The boats, 12 \u00E9"));
      ++loaded;
    } catch (const graft::Error&) {
    }
  }
  CHECK(loaded > 0);
}

TEST_CASE("Words, scripts and fixed lengths are cut as tokenizer.json says") {
  auto document = base();
  document.erase("post_processor");
  document.erase("decoder");
  document["added_tokens"] = Json::array();
  document["model"] = Json::parse(
      R"({"type": "WordLevel", "unk_token": "?", "vocab": {"?": 0, "ab": 1, "αβ": 2, "かカ漢": 3, "a": 4}})");
  using Ids = std::vector<std::int32_t>;
  const auto ids = [&](const char* step, const char* text) {
    document["pre_tokenizer"] = Json::parse(step);
    return graft::text::tokenizer_from_json(document.dump(), "t.json").encode(text);
  };
  CHECK(ids(R"({"type": "UnicodeScripts"})", " abαβかカ漢ab") == Ids{1, 2, 3, 1});
  // The tables of the tokenizers library are those of Unicode 9.
  CHECK(ids(R"({"type": "UnicodeScripts"})", "ab\U0001F926ab") == Ids{1, 0, 1});
  CHECK(ids(R"({"type": "UnicodeScripts"})", "ab\U0001F928ab") == Ids{0});
  CHECK(ids(R"({"type": "FixedLength", "length": 2})", "αβaba") == Ids{2, 1, 4});
  const char* words = R"({"type": "Whitespace"})";
  CHECK(ids(words, "ab abc αβ") == Ids{1, 0, 2});
  document["model"].erase("type");  // the last kind that is thought of
  CHECK(ids(words, "ab abc αβ") == Ids{1, 0, 2});

  // A file may do without the unknown token in the model, until it is needed.
  document["model"]["unk_token"] = "<u>";
  document["added_tokens"] = Json::parse(R"([{"id": 5, "content": "<u>", "special": true}])");
  CHECK(ids(words, "ab <u> αβ") == Ids{1, 5, 2});
  CHECK_THROWS_WITH(ids(words, "ab abc"), Catch::Contains("unknown token '<u>'"));
  document["model"].erase("unk_token");
  CHECK_THROWS_WITH(ids(words, "ab"), Catch::Contains("key 'type' is missing"));
}

TEST_CASE("Pieces and merges may lack the unknown token until it is needed, as words may") {
  auto document = base();
  document.erase("post_processor");
  document.erase("decoder");
  document["normalizer"] = nullptr;
  document["pre_tokenizer"] = Json::parse(R"({"type": "Whitespace"})");
  document["added_tokens"] = Json::parse(R"([{"id": 5, "content": "<u>", "special": true}])");
  for (
      const char* model :
      {R"({"type": "BPE", "unk_token": "<u>", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]})",
       R"({"type": "WordPiece", "unk_token": "<u>", "vocab": {"a": 0, "##b": 1, "ab": 2}})"}) {
    document["model"] = Json::parse(model);
    const auto tokenizer = graft::text::tokenizer_from_json(document.dump(), "t.json");
    CHECK(tokenizer.encode("ab <u> a") == std::vector<std::int32_t>{2, 5, 0});
    // That of the added tokens is none of the model's.
    CHECK_THROWS_WITH(tokenizer.encode("ab axb"), Catch::Contains("unknown token '<u>'"));
  }
}

TEST_CASE("A CTC decoder drops repeats and blanks and writes the gaps between words") {
  auto document = base();
  document["decoder"] = Json::parse(R"({"type": "CTC", "pad_token": "b", "cleanup": true,
                                        "word_delimiter_token": "<s>"})");
  const auto tokenizer = graft::text::tokenizer_from_json(document.dump(), "t.json");
  CHECK(tokenizer.decode(std::vector<std::int32_t>{0, 0, 1, 0, 3, 3, 0}) == "aa a");
}

TEST_CASE("Cuts of equal scores are told apart as by the digits that the file has") {
  // What the tokenizers library says; with the nearest doubles 3, 3, 1 wins.
  auto document = base();
  document.erase("post_processor");
  document["added_tokens"] = Json::array();
  document["pre_tokenizer"] = nullptr;
  document["decoder"] = nullptr;
  document["normalizer"] = nullptr;
  document["model"] = Json::parse(R"({"type": "Unigram", "unk_id": 0, "vocab": [["?", -9],
      ["x", -10.474337369372327], ["xx", -20.948674738744653], ["xxx", -31.42301210811698]]})");
  const auto tokenizer = graft::text::tokenizer_from_json(document.dump(), "t.json");
  CHECK(tokenizer.encode("xxxxxxx") == std::vector<std::int32_t>{1, 3, 3});
}
