#include "graft/text/unigram.hpp"

#include <catch2/catch.hpp>
#include <limits>
#include <random>
#include <string>
#include <vector>

using namespace graft::text;

namespace {

struct UnigramFixture {
  Vocabulary vocabulary;
  std::vector<UnigramPiece> pieces;

  void add(const std::string& text, double score, bool user_defined = false) {
    const auto id = static_cast<std::int32_t>(vocabulary.size());
    vocabulary.add(text, id);
    pieces.push_back({text, id, score, user_defined});
  }
  std::vector<std::string> tokens(const UnigramModel& model, const std::string& text) const {
    std::vector<TokenPart> parts;
    model.tokenize(text, parts);
    std::vector<std::string> list;
    for (const TokenPart& part : parts) list.push_back(vocabulary.token(part.id));
    return list;
  }
};

/// The best sum of scores over all ways to cut the text, by trying all of them.
double best_score(const std::vector<UnigramPiece>& pieces, const std::string& text,
                  std::size_t begin) {
  if (begin == text.size()) return 0;
  double best = -std::numeric_limits<double>::infinity();
  for (const UnigramPiece& piece : pieces) {
    if (text.compare(begin, piece.text.size(), piece.text) == 0)
      best = std::max(best, piece.score + best_score(pieces, text, begin + piece.text.size()));
  }
  return best;
}

}  // namespace

TEST_CASE("The tokens have the best sum of scores of all segmentations") {
  std::mt19937_64 draw(2);
  std::uniform_real_distribution<double> score(-10, -1);
  for (int round = 0; round < 50; ++round) {
    UnigramFixture f;
    for (const char* letter : {"a", "b", "c"}) f.add(letter, score(draw));
    for (int i = 0; i < 12; ++i) {
      std::string text;
      for (std::size_t n = 2 + draw() % 3; n > 0; --n) text.push_back("abc"[draw() % 3]);
      if (f.vocabulary.find(text) == kNoToken) f.add(text, score(draw));
    }
    const UnigramModel model(f.vocabulary, f.pieces, {});
    std::string text;
    for (int i = 0; i < 9; ++i) text.push_back("abc"[draw() % 3]);
    double sum = 0;
    std::string joined;
    for (const std::string& token : f.tokens(model, text)) {
      sum += f.pieces[static_cast<std::size_t>(f.vocabulary.find(token))].score;
      joined += token;
    }
    CHECK(joined == text);
    CHECK(sum == Approx(best_score(f.pieces, text, 0)));
  }
}

TEST_CASE("A run of unknown characters is one unknown token, or bytes") {
  UnigramFixture f;
  f.add("<unk>", 0);
  f.add("a", -1);
  using Tokens = std::vector<std::string>;
  CHECK(f.tokens(UnigramModel(f.vocabulary, f.pieces, {0, false, false}), "x\u00E9axa") ==
        Tokens{"<unk>", "a", "<unk>", "a"});
  CHECK_THROWS_AS(f.tokens(UnigramModel(f.vocabulary, f.pieces, {}), "x"), graft::ValueError);
  for (int byte = 0; byte < 256; ++byte) f.add(byte_token(static_cast<unsigned char>(byte)), -9);
  CHECK(f.tokens(UnigramModel(f.vocabulary, f.pieces, {0, true, false}), "a\u00E9") ==
        Tokens{"a", "<0xC3>", "<0xA9>"});
}

TEST_CASE("User-defined tokens are preferred by their length, whatever their score") {
  UnigramFixture f;
  for (const char* letter : {"a", "b", "c"}) f.add(letter, -0.5);
  f.add("bc", -50, true);  // counts as 2 * -0.5 - 0.1
  f.add("ab", -0.8);
  CHECK(f.tokens(UnigramModel(f.vocabulary, f.pieces, {}), "abc") ==
        std::vector<std::string>{"ab", "c"});
  f.pieces.pop_back();
  CHECK(f.tokens(UnigramModel(f.vocabulary, f.pieces, {}), "bc") ==
        std::vector<std::string>{"b", "c"});
  f.pieces.back().text = "abc";  // 3 * -0.5 - 0.1 against 3 * -0.5
  f.pieces.push_back({"a", 0, -0.4, false});
  CHECK(f.tokens(UnigramModel(f.vocabulary, f.pieces, {}), "abc").size() == 1);
}

TEST_CASE("Scores that are not numbers are refused") {
  UnigramFixture f;
  f.add("a", std::numeric_limits<double>::quiet_NaN());
  CHECK_THROWS_WITH(UnigramModel(f.vocabulary, f.pieces, {}), Catch::Contains("'a'"));
}
