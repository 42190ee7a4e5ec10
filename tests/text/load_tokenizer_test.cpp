#include "graft/text/load_tokenizer.hpp"

#include <unistd.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>
#include "text/case_files.hpp"

namespace {

namespace fs = std::filesystem;
using graft::text::load_tokenizer;

/// A folder that goes away with the test.
class Folder {
 public:
  explicit Folder(const std::string& name)
      : path_(fs::temp_directory_path() / ("graft_load_" + name + std::to_string(::getpid()))) {
    fs::create_directories(path_);
  }
  ~Folder() { fs::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(path_ / name, std::ios::binary) << text;
  }
  void copy(const fs::path& file) const { fs::copy_file(file, path_ / file.filename()); }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

}  // namespace

TEST_CASE("Roles of tokens and the chat template come from the files beside the tokenizer") {
  const Folder folder("roles");
  folder.copy(kCases / "qwen2" / "tokenizer.json");
  const auto bare = load_tokenizer(folder.path());
  CHECK(bare.eos_id() == graft::text::kNoToken);
  CHECK(bare.chat_template().empty());
  folder.write("special_tokens_map.json", R"({"pad_token": {"content": "<|endoftext|>"},
                                              "eos_token": "<|endoftext|>"})");
  folder.write("tokenizer_config.json",
               R"({"eos_token": "<|im_end|>", "bos_token": null, "unk_token": "not there",
                   "chat_template": [{"name": "tools", "template": "t"},
                                     {"name": "default", "template": "d"}]})");
  const auto full = load_tokenizer(folder.path() / "tokenizer.json");
  CHECK(full.eos_id() == full.id_of("<|im_end|>"));
  CHECK(full.pad_id() == full.id_of("<|endoftext|>"));
  CHECK(full.bos_id() == graft::text::kNoToken);
  CHECK(full.chat_template() == "d");
  folder.write("chat_template.jinja", "from the file");
  CHECK(load_tokenizer(folder.path()).chat_template() == "from the file");
}

TEST_CASE("Settings of the folder reach vocabularies and SentencePiece models") {
  const Folder bert("bert");
  bert.copy(kCases / "bert" / "vocab.txt");
  const auto uncased = load_tokenizer(bert.path());
  CHECK(uncased.encode("The") == uncased.encode("the"));
  bert.write("tokenizer_config.json", R"({"do_lower_case": false})");
  const auto cased = load_tokenizer(bert.path());
  CHECK(cased.encode("The") != cased.encode("the"));

  const Folder t5("t5");
  fs::copy_file(kCases / "sp_unigram" / "tokenizer.model", t5.path() / "spiece.model");
  CHECK_FALSE(load_tokenizer(t5.path()).adds_eos());
  t5.write("tokenizer_config.json", R"({"tokenizer_class": "T5Tokenizer"})");
  CHECK(load_tokenizer(t5.path()).adds_eos());
}

TEST_CASE("Without an unknown token a vocabulary spells what it can, as in transformers") {
  const Folder bert("bert");
  bert.write("vocab.txt", "[CLS]\n[SEP]\nthe\nsun\n##s\n");
  const auto tokenizer = load_tokenizer(bert.path());
  CHECK(tokenizer.unk_id() == graft::text::kNoToken);
  CHECK(tokenizer.encode("The suns") == std::vector<std::int32_t>{0, 2, 3, 4, 1});
  CHECK_THROWS_WITH(tokenizer.encode("the moon"),
                    Catch::Contains("lacks 'moon' and the unknown token '[UNK]'"));
}

TEST_CASE("A tokenizer.json is preferred to what else a folder holds") {
  const Folder folder("order");
  folder.copy(kCases / "bert" / "vocab.txt");
  folder.copy(kCases / "gpt2" / "tokenizer.json");
  CHECK(load_tokenizer(folder.path()).id_of("<|endoftext|>") != graft::text::kNoToken);
}

TEST_CASE("Nothing to load, or the wrong kind of file, is an error that says what was looked for") {
  using Catch::Contains;
  const Folder folder("empty");
  CHECK_THROWS_WITH(load_tokenizer(folder.path()),
                    Contains("tokenizer.json") && Contains("vocab.txt"));
  folder.write("weights.bin", "x");
  CHECK_THROWS_WITH(load_tokenizer(folder.path() / "weights.bin"), Contains("expected .gguf"));
  CHECK_THROWS_WITH(load_tokenizer(folder.path() / "no.json"), Contains("no.json"));
  folder.write("vocab.txt", "a\nb\n");
  CHECK_THROWS_WITH(load_tokenizer(folder.path()),
                    Contains("[CLS]") && Contains("that the model does not know"));
  folder.write("vocab.txt", "a\n\xFF\n");
  CHECK_THROWS_WITH(load_tokenizer(folder.path()), Contains("vocab.txt:2"));
  folder.write("tokenizer.json", "{}");
  CHECK_THROWS_WITH(load_tokenizer(folder.path()), Contains("tokenizer.json"));
  folder.write("t.gguf", "GGUF");
  CHECK_THROWS_AS(load_tokenizer(folder.path() / "t.gguf"), graft::IoError);
}
