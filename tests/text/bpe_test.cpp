#include "graft/text/bpe.hpp"

#include <catch2/catch.hpp>
#include <random>
#include <string>
#include <utility>
#include <vector>

using namespace graft::text;

namespace {

using Merges = std::vector<std::pair<std::string, std::string>>;

Vocabulary vocabulary_of(const std::vector<std::string>& tokens) {
  Vocabulary vocabulary;
  for (const std::string& token : tokens)
    if (vocabulary.find(token) == kNoToken)
      vocabulary.add(token, static_cast<std::int32_t>(vocabulary.size()));
  return vocabulary;
}

/// The definition, word for word: merge the pair of lowest rank, leftmost first, until none is
/// left.
std::vector<std::string> by_definition(std::vector<std::string> symbols, const Merges& merges) {
  while (true) {
    std::size_t best_rank = merges.size(), at = 0;
    for (std::size_t i = 0; i + 1 < symbols.size(); ++i) {
      for (std::size_t rank = 0; rank < best_rank; ++rank) {
        if (merges[rank] == std::pair(symbols[i], symbols[i + 1])) {
          best_rank = rank;
          at = i;
        }
      }
    }
    if (best_rank == merges.size()) return symbols;
    symbols[at] += symbols[at + 1];
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
}

std::vector<std::string> tokens_of(const BpeModel& model, const Vocabulary& vocabulary,
                                   const std::string& text) {
  std::vector<TokenPart> parts;
  model.tokenize(text, parts);
  std::vector<std::string> tokens;
  for (const TokenPart& part : parts) tokens.push_back(vocabulary.token(part.id));
  return tokens;
}

}  // namespace

TEST_CASE("Short and long words are merged as the definition says") {
  std::mt19937_64 draw(11);
  for (int round = 0; round < 30; ++round) {
    std::vector<std::string> tokens{"a", "b", "c"};
    Merges merges;
    for (int i = 0; i < 40; ++i) {
      const std::string left = tokens[draw() % tokens.size()];
      const std::string right = tokens[draw() % tokens.size()];
      const std::pair merge(left, right);
      if (std::find(merges.begin(), merges.end(), merge) != merges.end()) continue;
      merges.push_back(merge);
      if (std::find(tokens.begin(), tokens.end(), left + right) == tokens.end())
        tokens.push_back(left + right);
    }
    const Vocabulary vocabulary = vocabulary_of(tokens);
    const BpeModel model(vocabulary, merges, {});
    for (const std::size_t length : std::vector<std::size_t>{1, 2, 7, 39, 40, 41, 90, 150}) {
      std::string text;
      std::vector<std::string> symbols;
      for (std::size_t i = 0; i < length; ++i) {
        symbols.emplace_back(1, "abc"[draw() % 3]);
        text += symbols.back();
      }
      REQUIRE(tokens_of(model, vocabulary, text) == by_definition(symbols, merges));
    }
  }
}

TEST_CASE("Parts say where their bytes begin") {
  const Vocabulary vocabulary = vocabulary_of({"a", "b", "\u00E9", "ab"});
  const BpeModel model(vocabulary, {{"a", "b"}}, {});
  std::vector<TokenPart> parts;
  model.tokenize("\u00E9ab\u00E9b", parts);
  std::vector<std::uint32_t> begins;
  for (const TokenPart& part : parts) begins.push_back(part.begin);
  CHECK(begins == std::vector<std::uint32_t>{0, 2, 4, 6});
}

TEST_CASE("Unknown characters are dropped, replaced, fused or spelled in bytes") {
  std::vector<std::string> tokens{"a", "<unk>"};
  const Vocabulary plain = vocabulary_of(tokens);
  using Strings = std::vector<std::string>;
  CHECK(tokens_of(BpeModel(plain, {}, {}), plain, "axya") == Strings{"a", "a"});
  BpeOptions options;
  options.unk_token = "<unk>";
  CHECK(tokens_of(BpeModel(plain, {}, options), plain, "axya") ==
        Strings{"a", "<unk>", "<unk>", "a"});
  options.fuse_unk = true;
  CHECK(tokens_of(BpeModel(plain, {}, options), plain, "xxaxya") ==
        Strings{"<unk>", "a", "<unk>", "a"});
  options.byte_fallback = true;
  for (int byte = 0; byte < 256; ++byte)
    tokens.push_back(byte_token(static_cast<unsigned char>(byte)));
  const Vocabulary bytes = vocabulary_of(tokens);
  CHECK(tokens_of(BpeModel(bytes, {}, options), bytes, "a\u00E9") ==
        Strings{"a", "<0xC3>", "<0xA9>"});
}

TEST_CASE("A vocabulary may do without the unknown token until a character is unknown") {
  const Vocabulary vocabulary = vocabulary_of({"a", "b", "ab"});
  BpeOptions options;
  for (const char* name : {"<unk>", ""}) {
    options.unk_token = name;
    for (const bool byte_level : {false, true}) {
      options.byte_level = byte_level;
      const BpeModel model(vocabulary, {{"a", "b"}}, options);
      CHECK(tokens_of(model, vocabulary, "ab") == std::vector<std::string>{"ab"});
      CHECK_THROWS_WITH(
          tokens_of(model, vocabulary, "axb"),
          Catch::Contains(graft::concat("which lacks the unknown token '", name, "'")));
    }
  }
}

TEST_CASE("Words that are tokens stay whole if merges may be ignored") {
  const Vocabulary vocabulary = vocabulary_of({"a", "b", "ab", "abb"});
  BpeOptions options;
  CHECK(tokens_of(BpeModel(vocabulary, {{"a", "b"}}, options), vocabulary, "abb") ==
        std::vector<std::string>{"ab", "b"});
  options.ignore_merges = true;
  CHECK(tokens_of(BpeModel(vocabulary, {{"a", "b"}}, options), vocabulary, "abb") ==
        std::vector<std::string>{"abb"});
}

TEST_CASE("A merge of tokens that do not exist is an error that names them") {
  const Vocabulary vocabulary = vocabulary_of({"a", "b"});
  CHECK_THROWS_WITH(BpeModel(vocabulary, {{"a", "b"}}, {}), Catch::Contains("'ab'"));
  CHECK_THROWS_WITH(BpeModel(vocabulary, {{"a", "q"}}, {}), Catch::Contains("'q'"));
}

TEST_CASE("Byte tokens are recognised by their spelling") {
  CHECK(byte_of_token("<0x0A>") == 10);
  CHECK(byte_of_token("<0xff>") == 255);
  CHECK(byte_of_token("<0xFG>") == -1);
  CHECK(byte_of_token("0x0A") == -1);
  for (int byte = 0; byte < 256; ++byte)
    CHECK(byte_of_token(byte_token(static_cast<unsigned char>(byte))) == byte);
}
