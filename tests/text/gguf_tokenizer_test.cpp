#include "graft/text/gguf_tokenizer.hpp"

#include <catch2/catch.hpp>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "graft/io/json.hpp"
#include "graft/text/load_tokenizer.hpp"
#include "graft/text/sentence_piece.hpp"
#include "text/case_files.hpp"

namespace {

namespace fs = std::filesystem;
using graft::io::GgufMetadata;
using graft::io::Json;
using graft::text::Tokenizer;

void set_tokens(GgufMetadata& metadata, const Tokenizer& tokenizer) {
  std::vector<std::string> tokens;
  std::vector<std::int32_t> types;
  for (graft::Index i = 0; i < tokenizer.vocab_size(); ++i) {
    const auto id = static_cast<std::int32_t>(i);
    tokens.push_back(tokenizer.token(id));
    types.push_back(tokenizer.is_special(id) ? 3 : 1);
  }
  metadata.set("tokenizer.ggml.tokens", tokens);
  metadata.set("tokenizer.ggml.token_type", types);
}

/// Strings of a case whose ids differ.
int wrong_strings(const Tokenizer& tokenizer, const std::string& name, bool parse_special) {
  const Json cases = graft::io::read_json(kCases / name / "strings.json");
  int wrong = 0;
  for (const auto& entry : cases.at("strings")) {
    std::string text = entry.at("text").get<std::string>();
    if (cases.value("strips_zeros", false)) std::erase(text, '\0');
    const auto ids =
        tokenizer.encode(text, {.add_special = cases.at("add_special_tokens").get<bool>(),
                                .parse_special = parse_special});
    if (ids != entry.at("ids").get<std::vector<std::int32_t>>()) {
      ++wrong;
      UNSCOPED_INFO(entry.at("text").dump());
    }
  }
  return wrong;
}

GgufMetadata byte_level_metadata() {
  GgufMetadata metadata;
  const auto file = kCases / "smollm" / "tokenizer.json";
  set_tokens(metadata, graft::text::load_tokenizer(file));
  const Json document = graft::io::read_json(file);
  std::vector<std::string> merges;
  for (const auto& merge : document.at("model").at("merges")) {
    merges.push_back(merge.is_string()
                         ? merge.get<std::string>()
                         : merge[0].get<std::string>() + " " + merge[1].get<std::string>());
  }
  metadata.set("tokenizer.ggml.model", std::string("gpt2"));
  metadata.set("tokenizer.ggml.pre", std::string("smollm"));
  metadata.set("tokenizer.ggml.merges", merges);
  metadata.set("tokenizer.ggml.eos_token_id", std::uint32_t{0});
  return metadata;
}

}  // namespace

TEST_CASE("Byte-level BPE from metadata equals the same vocabulary in tokenizer.json") {
  const Tokenizer tokenizer = graft::text::tokenizer_from_gguf(byte_level_metadata(), "m.gguf");
  CHECK(wrong_strings(tokenizer, "smollm", true) == 0);
  CHECK(tokenizer.eos_id() == 0);
  CHECK(tokenizer.bos_id() == graft::text::kNoToken);
}

TEST_CASE("SentencePiece models from metadata equal the same model in its own format") {
  for (const std::string name : {"sp_bpe", "sp_unigram_bytes"}) {
    CAPTURE(name);
    const fs::path file = kCases / name / "tokenizer.model";
    const Tokenizer original = graft::text::load_tokenizer(file);
    std::vector<std::string> tokens;
    std::vector<float> scores;
    std::vector<std::int32_t> types;
    const std::string bytes = graft::io::read_file(file);
    graft::text::detail::ProtoReader model(bytes, "m");
    while (const auto field = model.next()) {
      if (field->number != 1) continue;
      graft::text::detail::ProtoReader piece(field->bytes, "m");
      types.push_back(1);
      scores.push_back(0);
      while (const auto item = piece.next()) {
        if (item->number == 1) tokens.emplace_back(item->bytes);
        if (item->number == 2) {
          const auto bits = static_cast<std::uint32_t>(item->value);
          std::memcpy(&scores.back(), &bits, 4);
        }
        if (item->number == 3) types.back() = static_cast<std::int32_t>(item->value);
      }
      // Files spell user-defined blanks as blanks.
      if (types.back() == 4) tokens.back() = graft::text::replace_all(tokens.back(), "\u2581", " ");
    }
    GgufMetadata metadata;
    const bool bpe = name == "sp_bpe";
    metadata.set("tokenizer.ggml.model", std::string(bpe ? "llama" : "t5"));
    metadata.set("tokenizer.ggml.tokens", tokens);
    metadata.set("tokenizer.ggml.scores", scores);
    metadata.set("tokenizer.ggml.token_type", types);
    metadata.set("tokenizer.ggml.unknown_token_id", std::uint32_t{0});
    metadata.set("tokenizer.ggml.bos_token_id", std::uint32_t{1});
    metadata.set("tokenizer.ggml.eos_token_id", std::uint32_t{2});
    metadata.set("tokenizer.ggml.remove_extra_whitespaces", false);
    const Tokenizer tokenizer = graft::text::tokenizer_from_gguf(metadata, "m.gguf");
    using Ids = std::vector<std::int32_t>;
    for (const std::string text : {"The boats leave", "12 loaves, isn't it", "x"}) {
      CHECK(tokenizer.encode(text, {.add_special = false}) == original.encode(text));
      Ids framed = original.encode(text);
      if (bpe) framed.insert(framed.begin(), 1);
      if (!bpe) framed.push_back(2);
      CHECK(tokenizer.encode(text) == framed);
      CHECK(tokenizer.decode(tokenizer.encode(text), true) == text);
    }
    metadata.set("tokenizer.ggml.add_bos_token", false);
    metadata.set("tokenizer.ggml.add_eos_token", false);
    CHECK(graft::text::tokenizer_from_gguf(metadata, "m.gguf").encode("x") == original.encode("x"));
  }
}

TEST_CASE("WordPiece from metadata equals the same vocabulary in vocab.txt") {
  const Tokenizer original = graft::text::load_tokenizer(kCases / "bert" / "vocab.txt");
  GgufMetadata metadata;
  set_tokens(metadata, original);
  std::vector<std::string> tokens;
  for (graft::Index i = 0; i < original.vocab_size(); ++i) {
    const std::string& token = original.token(static_cast<std::int32_t>(i));
    const bool bracket = token.starts_with("[") && token.ends_with("]");
    tokens.push_back(token.starts_with("##") ? token.substr(2)
                     : bracket               ? token
                                             : "\u2581" + token);
  }
  metadata.set("tokenizer.ggml.model", std::string("bert"));
  metadata.set("tokenizer.ggml.tokens", tokens);
  metadata.set("tokenizer.ggml.cls_token_id", std::uint32_t{2});
  metadata.set("tokenizer.ggml.seperator_token_id", std::uint32_t{3});
  metadata.set("tokenizer.ggml.unknown_token_id", std::uint32_t{1});
  CHECK(wrong_strings(graft::text::tokenizer_from_gguf(metadata, "m.gguf"), "bert", true) == 0);
}

TEST_CASE("Named splits equal the regular expressions that models publish") {
  const auto split = [](std::string_view name, const std::string& text) {
    graft::text::Pieces pieces(graft::text::Piece{text, 0, nullptr, true});
    graft::text::gguf_pre_tokenizer(name)(pieces);
    std::vector<std::string> list;
    for (const auto& piece : pieces.list()) list.emplace_back(piece.text);
    return list;
  };
  using Tokens = std::vector<std::string>;
  const std::string text = "It's 1234\n\n  x";
  CHECK(split("gpt-2", text) == Tokens{"It", "'s", " 1234", "\n\n ", " x"});
  CHECK(split("smollm", text) == Tokens{"It", "'s", " ", "1", "2", "3", "4", "\n\n ", " x"});
  CHECK(split("llama-bpe", text) == Tokens{"It", "'s", " ", "123", "4", "\n\n", " ", " x"});
  CHECK(split("qwen2", text) == Tokens{"It", "'s", " ", "1", "2", "3", "4", "\n\n", " ", " x"});
  CHECK(split("gpt-4o", "aBc'S x/\n") == Tokens{"a", "Bc'S", " x", "/\n"});
  CHECK(split("tekken", "aBc'S") == Tokens{"a", "Bc", "'S"});
  CHECK_THROWS_WITH(graft::text::gguf_pre_tokenizer("no-such"),
                    Catch::Contains("no-such") && Catch::Contains("smollm"));
}

TEST_CASE("Broken metadata is refused with file and key") {
  const auto message = [](const GgufMetadata& metadata) -> std::string {
    try {
      graft::text::tokenizer_from_gguf(metadata, "m.gguf");
    } catch (const graft::IoError& error) {
      return error.what();
    }
    return "loaded";
  };
  using Catch::Contains;
  CHECK(message(byte_level_metadata()) == "loaded");
  const auto with = [&](const char* key, graft::io::GgufValue value) {
    GgufMetadata metadata = byte_level_metadata();
    metadata.set(key, std::move(value));
    return message(metadata);
  };
  CHECK_THAT(with("tokenizer.ggml.model", std::string("rwkv")),
             Contains("m.gguf") && Contains("rwkv"));
  CHECK_THAT(with("tokenizer.ggml.pre", std::string("odd")), Contains("tokenizer.ggml.pre"));
  CHECK_THAT(with("tokenizer.ggml.eos_token_id", std::uint32_t{99999}), Contains("eos_token_id"));
  CHECK_THAT(with("tokenizer.ggml.merges", std::vector<std::string>{"ab"}), Contains("merges"));
  CHECK_THAT(with("tokenizer.ggml.merges", std::vector<std::string>{"a \xC4\xA0qq"}),
             Contains("merges"));
  CHECK_THAT(with("tokenizer.ggml.token_type", std::vector<std::int32_t>{1}),
             Contains("token_type"));
  CHECK_THAT(with("tokenizer.ggml.tokens", std::vector<std::string>{"\xFF"}), Contains("token"));
  CHECK_THAT(with("tokenizer.ggml.model", std::string("llama")), Contains("scores"));
  GgufMetadata none;
  CHECK_THAT(message(none), Contains("tokenizer.ggml.model"));
  CHECK(with("tokenizer.ggml.eos_token_id", std::int32_t{-1}) == "loaded");
}
