// Tokenizers against the reference libraries: cases of this repository, and the published models if
// their files are there.

#include <catch2/catch.hpp>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "graft/io/json.hpp"
#include "graft/io/mapped_file.hpp"
#include "graft/text/chat_template.hpp"
#include "graft/text/load_tokenizer.hpp"
#include "text/case_files.hpp"

namespace {

namespace fs = std::filesystem;
using graft::Index;
using graft::text::EncodeOptions;
using graft::text::Tokenizer;

struct Tally {
  Index compared = 0;
  Index wrong = 0;
  std::string first_wrong;
  void check(bool equal, const std::string& what) {
    ++compared;
    if (equal) return;
    if (wrong++ < 5) first_wrong += what.substr(0, 300) + "\n";
  }
};

/// Ids, decoded texts and streamed texts of every string, ids and types of every pair.
Tally compare(const Tokenizer& tokenizer, const graft::io::Json& cases, bool texts_are_decoded) {
  Tally tally;
  EncodeOptions options;
  options.add_special = cases.value("add_special_tokens", false);
  options.parse_special = cases.value("parse_special", true);
  for (const auto& entry : cases.at("strings")) {
    const auto text = entry.at("text").get<std::string>();
    const auto ids = entry.at("ids").get<std::vector<std::int32_t>>();
    std::string given = text;
    if (cases.value("strips_zeros", false)) std::erase(given, '\0');
    tally.check(tokenizer.encode(given, options) == ids, "ids of " + entry.at("text").dump());
    const auto decoded = [&](const char* key, std::optional<std::string> otherwise) {
      if (!entry.contains(key)) return otherwise;
      if (entry.at(key).is_null()) return std::optional<std::string>();
      return std::optional(entry.at(key).get<std::string>());
    };
    const auto plain = decoded("decoded", texts_are_decoded ? std::optional(text) : std::nullopt);
    const auto bare = decoded("decoded_without_special", plain);
    if (plain) tally.check(tokenizer.decode(ids) == *plain, "text of " + entry.at("text").dump());
    if (bare) {
      tally.check(tokenizer.decode(ids, true) == *bare, "bare text of " + entry.at("text").dump());
    }
    for (const bool skip : {false, true}) {
      graft::text::StreamDecoder stream(tokenizer, skip);
      std::string streamed;
      for (const std::int32_t id : ids) {
        streamed += stream.push(id);
        tally.check(graft::text::is_valid_utf8(streamed), "stream of " + entry.at("text").dump());
      }
      streamed += stream.finish();
      tally.check(streamed == tokenizer.decode(ids, skip),
                  "whole stream of " + entry.at("text").dump());
    }
  }
  if (!cases.contains("pairs")) return tally;
  for (const auto& entry : cases.at("pairs")) {
    const auto first = entry.at("first").get<std::string>();
    const auto second = entry.at("second").get<std::string>();
    const auto encoding = tokenizer.encode_pair(first, second, options);
    tally.check(encoding.ids == entry.at("input_ids").get<std::vector<std::int32_t>>(),
                "pair " + entry.dump());
    tally.check(encoding.type_ids == entry.at("token_type_ids").get<std::vector<std::int32_t>>(),
                "types of pair " + entry.dump());
    for (const int length : {6, 9, 14}) {
      const auto key = "input_ids_" + std::to_string(length);
      if (!entry.contains(key)) continue;
      EncodeOptions cut = options;
      cut.max_length = length;
      tally.check(tokenizer.encode_pair(first, second, cut).ids ==
                      entry.at(key).get<std::vector<std::int32_t>>(),
                  "pair cut to " + std::to_string(length) + ": " + entry.dump());
    }
  }
  return tally;
}

/// A published model in the cache folder of the test command, or an empty path.
fs::path published(const fs::path& name) {
  const auto variable = [](const char* key) {
    const char* value = std::getenv(key);
    return fs::path(value == nullptr ? "" : value);
  };
  for (const fs::path& cache :
       {variable("GRAFT_CACHE"), variable("GRAFT_MODEL_CACHE"),
        variable("XDG_CACHE_HOME") / "graft", variable("HOME") / ".cache" / "graft"}) {
    for (const fs::path& path : {cache / name, cache / name.filename()})
      if (cache.is_absolute() && fs::exists(path)) return path;
  }
  return {};
}

void check_folder(const std::string& name, const std::string& file) {
  const auto cases = graft::io::read_json(kCases / name / "strings.json");
  const Tokenizer tokenizer = graft::text::load_tokenizer(kCases / name / file);
  const Tally tally = compare(tokenizer, cases, true);
  INFO(tally.first_wrong);
  CHECK(tally.compared > 500);
  CHECK(tally.wrong == 0);
}

}  // namespace

TEST_CASE("Tokenizers of every family give the ids and texts of the reference libraries") {
  const std::string name =
      GENERATE("gpt2", "smollm", "qwen2", "llama3", "roberta", "falcon", "gemma3", "llama2", "bert",
               "bert_cased", "splits", "t5", "unigram_first");
  CAPTURE(name);
  check_folder(name, "tokenizer.json");
}

TEST_CASE("SentencePiece models give the ids and texts of SentencePiece") {
  const std::string name = GENERATE("sp_unigram", "sp_unigram_bytes", "sp_bpe", "sp_bpe_unk");
  CAPTURE(name);
  check_folder(name, "tokenizer.model");
}

TEST_CASE("A vocab.txt gives the ids of the same vocabulary in tokenizer.json") {
  check_folder("bert", "vocab.txt");
}

TEST_CASE("Published tokenizers give the ids of the conformance cases") {
  const fs::path cases = fs::path(GRAFT_SOURCE_DIR) / ".." / "shared" / "conformance" / "tokenizer";
  const bool smollm2 = GENERATE(true, false);
  const fs::path file = cases / (smollm2 ? "smollm2.json" : "minilm.json");
  if (!fs::exists(file)) {
    WARN("skipped: " << file.string() << " is not there");
    return;
  }
  const auto document = graft::io::read_json(file);
  const fs::path path =
      published(document.at("model").at(smollm2 ? "file" : "folder").get<std::string>());
  if (path.empty()) {
    WARN("skipped: the model of " << file.filename().string() << " is not in the model cache");
    return;
  }
  const Tokenizer tokenizer = graft::text::load_tokenizer(path);
  const Tally tally = compare(tokenizer, document, false);
  INFO(tally.first_wrong);
  CHECK(tally.compared > 1000);
  CHECK(tally.wrong == 0);
  if (!document.contains("chats")) return;
  const auto chat = graft::text::ChatTemplate::of(tokenizer);
  for (const auto& entry : document.at("chats")) {
    std::vector<graft::text::ChatMessage> messages;
    for (const auto& message : entry.at("messages"))
      messages.push_back({message.at("role"), message.at("content")});
    graft::text::ChatOptions options;
    options.add_generation_prompt = entry.at("add_generation_prompt").get<bool>();
    CHECK(chat.render(messages, options).text == entry.at("rendered").get<std::string>());
    CHECK(chat.encode(tokenizer, messages, options).ids ==
          entry.at("ids").get<std::vector<std::int32_t>>());
  }
}
