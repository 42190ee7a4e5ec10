#include "graft/text/sentence_piece_bpe.hpp"

#include <catch2/catch.hpp>
#include <random>
#include <string>
#include <vector>

#include "graft/text/pre_tokenizer.hpp"

using namespace graft::text;

namespace {

const std::string kMark = "\u2581";

struct MergesFixture {
  Vocabulary vocabulary;
  std::vector<ScoredPiece> pieces;
  void add(const std::string& text, float score, PieceKind kind = PieceKind::normal) {
    if (vocabulary.find(text) != kNoToken) return;
    const auto id = static_cast<std::int32_t>(vocabulary.size());
    vocabulary.add(text, id);
    pieces.push_back({text, id, score, kind});
  }
  std::vector<std::string> tokens(const std::string& text,
                                  SentencePieceBpeOptions options = {}) const {
    std::vector<TokenPart> parts;
    SentencePieceBpeModel(vocabulary, pieces, options).tokenize(text, parts);
    std::vector<std::string> list;
    for (const TokenPart& part : parts) list.push_back(vocabulary.token(part.id));
    return list;
  }
};

using Strings = std::vector<std::string>;

}  // namespace

TEST_CASE("The pair with the highest score merges first, the leftmost among equals") {
  MergesFixture f;
  for (const char* letter : {"a", "b", "c"}) f.add(letter, -10);
  f.add("ab", -2);
  f.add("bc", -1);
  CHECK(f.tokens("abc") == Strings{"a", "bc"});
  CHECK(f.tokens("abab") == Strings{"ab", "ab"});
  f.add("aa", -3);
  CHECK(f.tokens("aaa") == Strings{"aa", "a"});
}

TEST_CASE("User-defined tokens stay whole and unused ones are taken apart") {
  MergesFixture f;
  for (const char* letter : {"a", "b", "c"}) f.add(letter, -10);
  f.add("ab", -1, PieceKind::unused);
  f.add("abc", -2);
  f.add("cb", -9, PieceKind::user_defined);
  f.add("acb", -1);
  CHECK(f.tokens("abc") == Strings{"abc"});  // through the unused "ab"
  CHECK(f.tokens("abb") == Strings{"a", "b", "b"});
  CHECK(f.tokens("acba") == Strings{"a", "cb", "a"});
}

TEST_CASE("Unknown characters become bytes, or one unknown token a run") {
  MergesFixture f;
  f.add("<unk>", 0);
  f.add("a", -1);
  CHECK(f.tokens("xya", {0, false}) == Strings{"<unk>", "a"});
  MergesFixture bytes = f;
  for (int byte = 0; byte < 256; ++byte) {
    const std::string name = byte_token(static_cast<unsigned char>(byte));
    bytes.vocabulary.add(name, static_cast<std::int32_t>(bytes.vocabulary.size()));
  }
  CHECK(bytes.tokens("\u00E9a", {0, true}) == Strings{"<0xC3>", "<0xA9>", "a"});
}

TEST_CASE("Cutting at the marks changes no token, also where a token reaches across one") {
  std::mt19937_64 draw(9);
  for (int round = 0; round < 40; ++round) {
    MergesFixture f;
    std::vector<std::string> known{"a", "b", kMark};
    for (const std::string& text : known) f.add(text, -100);
    for (int i = 0; i < 25; ++i) {
      const std::string text = known[draw() % known.size()] + known[draw() % known.size()];
      known.push_back(text);
      f.add(text, -static_cast<float>(i));
    }
    const pre_tokenizers::MarkBoundaries cut([&](auto&& visit) {
      for (const ScoredPiece& piece : f.pieces) visit(piece.text);
    });
    for (int n = 0; n < 20; ++n) {
      std::string text;
      for (std::size_t i = 1 + draw() % 30; i > 0; --i) text += known[draw() % 3];
      Pieces pieces(Piece{text, 0, nullptr, true});
      cut(pieces);
      Strings tokens;
      std::string joined;
      for (const Piece& piece : pieces.list()) {
        for (std::string& token : f.tokens(std::string(piece.text)))
          tokens.push_back(std::move(token));
        joined += piece.text;
      }
      REQUIRE(joined == text);
      REQUIRE(tokens == f.tokens(text));
    }
  }
}

TEST_CASE("The marks cut where no token reaches across") {
  const pre_tokenizers::MarkBoundaries cut([&](auto&& visit) { visit(kMark + "a"); });
  const std::string text = "ab" + kMark + "a" + kMark + kMark + "b";
  Pieces pieces(Piece{text, 0, nullptr, true});
  cut(pieces);
  REQUIRE(pieces.list().size() == 3);
  CHECK(pieces.list()[2].text == kMark + kMark + "b");
  CHECK(pieces.list()[2].offset == 6);
}
