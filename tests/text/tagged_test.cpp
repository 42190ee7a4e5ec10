#include "graft/text/tagged.hpp"

#include <catch2/catch.hpp>
#include <filesystem>
#include <string>
#include <vector>

#include "graft/io/atomic_file.hpp"
#include "graft/text/load_tokenizer.hpp"
#include "io/temporary_folder.hpp"

namespace {

namespace fs = std::filesystem;
using Catch::Contains;
using graft::Index;
using graft::text::TaggedData;
using graft::text::TaggedDataOptions;
using Strings = std::vector<std::string>;
using Numbers = std::vector<std::int64_t>;

TaggedData load(const std::string& name, const std::string& text,
                const TaggedDataOptions& options = {}) {
  const graft_test::TemporaryFolder folder;
  graft::io::write_file_atomically(folder.path() / name, text);
  return graft::text::load_tagged_data(folder.path() / name, options);
}

constexpr const char* kLines = R"({"tokens": ["Anna", "sings", "."], "tags": ["B-PER", "O", "O"]}
{"tokens": ["Unbelievable", "!"], "tags": ["O", "O"]}
)";

graft::text::Tokenizer bert() {
  return graft::text::load_tokenizer(fs::path(GRAFT_SOURCE_DIR) / "tests" / "cases" / "tokenizer" /
                                     "bert");
}

}  // namespace

TEST_CASE("Tagged texts are the same from JSON lines and from CoNLL columns") {
  const auto lines = load("a.jsonl", kLines);
  const auto columns = load("a.conll",
                            "-DOCSTART- -X- O\n\nAnna NNP B-PER\nsings VB O\n. . O\n\n\n"
                            "Unbelievable\tJJ\tO\r\n!\t.\tO");
  CHECK(lines.tag_names == Strings{"B-PER", "O"});
  CHECK(columns.tag_names == lines.tag_names);
  REQUIRE(lines.rows.size() == 2);
  REQUIRE(columns.rows.size() == 2);
  for (std::size_t i = 0; i < 2; ++i) {
    CHECK(columns.rows[i].words == lines.rows[i].words);
    CHECK(columns.rows[i].tags == lines.rows[i].tags);
  }
  CHECK(lines.rows[0].tags == Numbers{0, 1, 1});
}

TEST_CASE("Words may come without tags") {
  const auto data = load("a.txt", "one\ntwo\n\nthree\n", {.tagged = false, .tag_names = {}});
  REQUIRE(data.rows.size() == 2);
  CHECK(data.rows[0].words == Strings{"one", "two"});
  CHECK(data.rows[0].tags.empty());
}

TEST_CASE("Errors in tagged texts name the file and the line") {
  CHECK_THROWS_WITH(load("a.txt", "one O\ntwo\n"),
                    Contains("a.txt:2") && Contains("'two' has no tag"));
  CHECK_THROWS_WITH(load("a.jsonl", R"({"tokens": ["a", "b"], "tags": ["O"]})"),
                    Contains("a.jsonl:1") && Contains("2 words") && Contains("1 tags"));
  CHECK_THROWS_WITH(load("a.jsonl", R"({"tokens": [], "tags": []})"), Contains("no words"));
  CHECK_THROWS_WITH(load("a.jsonl", R"({"words": ["a"], "tags": ["O"]})"), Contains("tokens"));
  CHECK_THROWS_WITH(load("a.txt", "a X\nb X\n"), Contains("all words have the tag 'X'"));
  CHECK_THROWS_WITH(load("a.txt", "\n \n"), Contains("no texts"));
  CHECK_THROWS_WITH(load("a.txt", "a O\n\nb Y\n", {.tag_names = {"O", "X"}}),
                    Contains("a.txt:3") && Contains("'Y' is not one of O, X"));
  CHECK_THROWS_WITH(load("a.txt", "a\xFF O\n"), Contains("a.txt:1") && Contains("UTF-8"));
}

TEST_CASE("The first token of a word has its tag, what the tokenizer adds has none") {
  const auto tokenizer = bert();
  const auto data = load("a.jsonl", kLines);
  const auto examples = graft::text::encode_tagged(data, tokenizer, 64);
  REQUIRE(examples.size() == 2);
  for (std::size_t i = 0; i < 2; ++i) {
    std::string joined;
    for (const auto& word : data.rows[i].words) joined += (joined.empty() ? "" : " ") + word;
    CHECK(examples[i].ids == tokenizer.encode(joined));
    REQUIRE(examples[i].labels.size() == examples[i].ids.size());
    CHECK(examples[i].labels.front() == graft::text::kIgnoredLabel);
    CHECK(examples[i].labels.back() == graft::text::kIgnoredLabel);
    Numbers labels;
    for (const auto label : examples[i].labels)
      if (label != graft::text::kIgnoredLabel) labels.push_back(label);
    CHECK(labels == data.rows[i].tags);
  }
  CHECK(examples[1].ids.size() > 4);  // a word of several tokens
}

TEST_CASE("A tagged text that is too long loses whole words at its end") {
  const auto data = load("a.jsonl", kLines);
  Index cut = 0;
  const auto examples = graft::text::encode_tagged(data, bert(), 4, &cut);
  CHECK(cut >= 1);
  for (const auto& example : examples) CHECK(example.length() <= 4);
  CHECK(examples[0].ids.size() == examples[0].labels.size());
  CHECK_THROWS_AS(graft::text::encode_tagged(data, bert(), 2), graft::ValueError);
}
