#include "graft/text/dataset.hpp"

#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "graft/text/load_tokenizer.hpp"
#include "graft/text/tokenizer_json.hpp"

namespace {

namespace fs = std::filesystem;
using namespace graft::text;
using Catch::Contains;
using graft::Index;

/// A file that goes away with the test.
class File {
 public:
  File(const std::string& name, const std::string& text)
      : path_(fs::temp_directory_path() / ("graft_data_" + std::to_string(::getpid()) + name)) {
    std::ofstream(path_, std::ios::binary) << text;
  }
  ~File() { fs::remove(path_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

Tokenizer tokenizer(bool with_template = false) {
  TokenizerParts parts = tokenizer_parts_from_json(
      graft::io::read_file(fs::path(GRAFT_SOURCE_DIR) / "tests" / "cases" / "tokenizer" / "qwen2" /
                           "tokenizer.json"),
      "tokenizer.json");
  parts.special.eos = parts.vocabulary.find("<|im_end|>");
  if (with_template) {
    parts.chat_template =
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
        "{% endfor %}";
  }
  return Tokenizer(std::move(parts));
}

std::vector<std::int32_t> all_ids(const LanguageData& data) {
  std::vector<std::int32_t> ids;
  for (const Example& example : data.examples)
    ids.insert(ids.end(), example.ids.begin(), example.ids.end());
  return ids;
}

std::string learned(const Tokenizer& t, const Example& example) {
  std::vector<std::int32_t> ids;
  for (std::size_t i = 0; i < example.ids.size(); ++i) {
    if (example.labels[i] == kIgnoredLabel) continue;
    REQUIRE(example.labels[i] == example.ids[i]);
    ids.push_back(example.ids[i]);
  }
  return t.decode(ids);
}

}  // namespace

TEST_CASE("Packed texts are cut into full sequences, documents end with eos") {
  const Tokenizer t = tokenizer();
  const File file("a.txt", "The boats leave.\n\nThe nets are mended.\n\n\nA third one");
  LanguageDataOptions options;
  options.sequence_length = 7;
  options.unit = DocumentUnit::blank_line;
  const LanguageData data = load_language_data(file.path(), t, options);
  CHECK(data.documents == 3);
  CHECK(data.tokens == static_cast<Index>(all_ids(data).size()));
  for (std::size_t i = 0; i + 1 < data.examples.size(); ++i) CHECK(data.examples[i].length() == 7);
  for (const Example& example : data.examples) {
    CHECK(example.labels == std::vector<std::int64_t>(example.ids.begin(), example.ids.end()));
  }
  const std::string text = t.decode(all_ids(data));
  CHECK(text.starts_with("The boats leave.\n<|im_end|>The nets are mended.\n<|im_end|>A third"));
}

TEST_CASE("Without packing, no sequence holds two documents") {
  const Tokenizer t = tokenizer();
  const File file("b.txt", "The boats leave in the morning\nx\n\nThe nets\n");
  LanguageDataOptions options;
  options.sequence_length = 6;
  options.packing = false;
  options.unit = DocumentUnit::line;
  const LanguageData data = load_language_data(file.path(), t, options);
  CHECK(data.documents == 3);
  for (const Example& example : data.examples) {
    const auto eos = std::find(example.ids.begin(), example.ids.end(), t.eos_id());
    CHECK((eos == example.ids.end() || eos + 1 == example.ids.end()));
    CHECK(example.length() <= 6);
    CHECK(example.length() >= 2);
  }
  options.unit = DocumentUnit::file;
  CHECK(load_language_data(file.path(), t, options).documents == 1);
}

TEST_CASE("Long texts are packed in portions to the same sequences") {
  const Tokenizer t = tokenizer();
  std::string text;
  for (int i = 0; i < 60'000; ++i)
    text += "line " + std::to_string(i) + " of the boats in the lane\n";
  const File file("c.txt", text);
  LanguageDataOptions options;
  options.sequence_length = 128;
  const LanguageData data = load_language_data(file.path(), t, options);
  CHECK(data.tokens > 1'200'000);
  std::vector<std::int32_t> expected = t.encode(text);
  expected.push_back(t.eos_id());
  CHECK(all_ids(data) == expected);
}

TEST_CASE("Conversations use the template, and the loss can be limited to the answers") {
  const Tokenizer t = tokenizer(true);
  const File file(
      "d.jsonl",
      R"({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]})"
      "\n\n"
      R"({"messages": [{"role": "user", "content": "only a question"}]})"
      "\n");
  LanguageDataOptions options;
  LanguageData data = load_language_data(file.path(), t, options);
  REQUIRE(data.examples.size() == 2);
  CHECK(t.decode(data.examples[0].ids) ==
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n");
  options.answers_only = true;
  data = load_language_data(file.path(), t, options);
  REQUIRE(data.examples.size() == 1);
  CHECK(data.dropped == 1);
  CHECK(learned(t, data.examples[0]) == "Hello<|im_end|>");
  CHECK_THROWS_WITH(load_language_data(file.path(), tokenizer()), Contains("template"));
  CHECK(load_language_data(file.path(), tokenizer(), {}, ChatTemplate::named("chatml"))
            .examples.size() == 2);
  options.sequence_length = 5;
  CHECK_THROWS_WITH(load_language_data(file.path(), t, options), Contains("no example"));
}

TEST_CASE("Prompts and completions join, and the loss can be limited to the completion") {
  const Tokenizer t = tokenizer();
  const File file("e.jsonl", R"({"prompt": "2 + 2 =", "completion": " 4"})"
                             "\n"
                             R"({"text": "The boats"})"
                             "\n");
  LanguageDataOptions options;
  options.answers_only = true;
  options.packing = false;
  const LanguageData data = load_language_data(file.path(), t, options);
  REQUIRE(data.examples.size() == 2);
  CHECK(t.decode(data.examples[0].ids) == "2 + 2 = 4<|im_end|>");
  CHECK(learned(t, data.examples[0]) == " 4<|im_end|>");
  CHECK(t.decode(data.examples[1].ids) == "The boats<|im_end|>");
}

TEST_CASE("Bad lines of language data are named") {
  const Tokenizer t = tokenizer(true);
  const auto fails = [&](const std::string& text, const std::string& what) {
    const File file("f.jsonl", text);
    CHECK_THROWS_WITH(load_language_data(file.path(), t), Contains("f.jsonl") && Contains(what));
  };
  fails("{\"text\": \"ok\"}\n{\"text\": 3}\n", ":2");
  fails("{\"text\": \"ok\"}\n\n{broken\n", ":3");
  fails("{\"other\": 1}\n", "'messages'");
  fails("{\"messages\": [{\"role\": \"user\"}]}\n", "messages[0]");
  fails("{\"messages\": []}\n", "without messages");
  fails("{\"prompt\": \"x\"}\n", "completion");
  fails("[1]\n", ":1");
  fails("", "no example");
  CHECK_THROWS_AS(load_language_data("no such file.txt", t), graft::IoError);
  LanguageDataOptions options;
  options.sequence_length = 1;
  const File file("g.txt", "abc");
  CHECK_THROWS_AS(load_language_data(file.path(), t, options), graft::ValueError);
}

TEST_CASE("Classes are numbered by value or by name, and unknown ones are refused later") {
  const File numbers("h.csv", "label,text\n10,a\n2,b\n10,c\n");
  const LabelledData data = load_labelled_data(numbers.path());
  CHECK(data.label_names == std::vector<std::string>{"2", "10"});
  CHECK(data.rows[0].label == 1);
  CHECK(data.rows[1].label == 0);
  CHECK(data.rows[2].text == "c");
  const File names("i.tsv", "text\tlabel\nx\tpos\ny\tneg\n");
  CHECK(load_labelled_data(names.path()).label_names == std::vector<std::string>{"neg", "pos"});
  LabelledDataOptions options;
  options.label_names = {"pos", "other"};
  CHECK_THROWS_WITH(load_labelled_data(names.path(), options),
                    Contains("i.tsv:3") && Contains("'neg'") && Contains("pos, other"));
  const File lines("j.jsonl", "{\"label\": 1, \"text\": \"a\"}\n{\"label\": 0, \"text\": \"b\"}\n");
  CHECK(load_labelled_data(lines.path()).rows[0].label == 1);
}

TEST_CASE("Targets of a regression are finite numbers") {
  LabelledDataOptions options;
  options.regression = true;
  const File file("k.csv", "text,label\na,0.5\nb,-2e1\n");
  const LabelledData data = load_labelled_data(file.path(), options);
  CHECK(data.rows[0].target == 0.5F);
  CHECK(data.rows[1].target == -20.0F);
  CHECK(data.label_names.empty());
  for (const char* bad : {"x", "nan", "inf", "1.0 ", ""}) {
    const File wrong("l.csv", std::string("text,label\na,1\nb,") + bad + "\n");
    CHECK_THROWS_WITH(load_labelled_data(wrong.path(), options), Contains("l.csv:3"));
  }
}

TEST_CASE("Mistakes in labelled data are explained") {
  const File file("m.csv", "text,class\na,x\nb,x\n");
  CHECK_THROWS_WITH(load_labelled_data(file.path()),
                    Contains("'label'") && Contains("text, class"));
  LabelledDataOptions options;
  options.label_column = "class";
  CHECK_THROWS_WITH(load_labelled_data(file.path(), options),
                    Contains("all 2 rows") && Contains("'x'"));
  const File empty("n.csv", "text,label\na,1\nb,\n");
  CHECK_THROWS_WITH(load_labelled_data(empty.path()), Contains("n.csv:3") && Contains("empty"));
  const File other("o.xls", "x");
  CHECK_THROWS_WITH(load_labelled_data(other.path()), Contains(".csv"));
}

TEST_CASE("Labelled texts and pairs become examples within the length") {
  const auto bert = load_tokenizer(fs::path(GRAFT_SOURCE_DIR) / "tests" / "cases" / "tokenizer" /
                                   "bert" / "tokenizer.json");
  LabelledDataOptions options;
  options.pair_column = "second";
  const File file("p.csv", "text,second,label\nthe boats leave,in the morning,1\n,x,0\n");
  const auto examples = encode_labelled(load_labelled_data(file.path(), options), bert, 8);
  REQUIRE(examples.size() == 2);
  CHECK(examples[0].length() == 8);
  CHECK(examples[0].ids ==
        bert.encode_pair("the boats leave", "in the morning", {.max_length = 8}).ids);
  CHECK(examples[0].token_types.back() == 1);
  CHECK(examples[0].label == 1);
  const std::vector<Index> rows{0, 1};
  CHECK(make_batch(examples, rows).labels == std::vector<std::int64_t>{1, 0});
  CHECK_THROWS_AS(encode_labelled(load_labelled_data(file.path(), options), bert, 0),
                  graft::ValueError);
}
