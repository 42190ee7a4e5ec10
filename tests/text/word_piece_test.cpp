#include "graft/text/word_piece.hpp"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

using namespace graft::text;

namespace {

std::vector<std::string> split(const std::string& word, const WordPieceOptions& options = {}) {
  Vocabulary vocabulary;
  for (const char* token :
       {"[UNK]", "un", "##aff", "##able", "unaff", "##a", "##ble", "\u00E9", "##\u00E9"})
    vocabulary.add(token, static_cast<std::int32_t>(vocabulary.size()));
  std::vector<TokenPart> parts;
  WordPieceModel(vocabulary, options).tokenize(word, parts);
  std::vector<std::string> tokens;
  for (const TokenPart& part : parts) tokens.push_back(vocabulary.token(part.id));
  return tokens;
}

using Strings = std::vector<std::string>;

}  // namespace

TEST_CASE("Words are cut greedily, the longest token first") {
  CHECK(split("unaffable") == Strings{"unaff", "##able"});
  CHECK(split("una") == Strings{"un", "##a"});
  CHECK(split("\u00E9\u00E9") == Strings{"\u00E9", "##\u00E9"});
}

TEST_CASE("A word that cannot be spelled is one unknown token, also when its beginning could") {
  CHECK(split("unaffx") == Strings{"[UNK]"});
  CHECK(split("affable") == Strings{"[UNK]"});
}

TEST_CASE("The longest word counts in characters") {
  WordPieceOptions options;
  options.max_input_chars_per_word = 3;
  CHECK(split("\u00E9\u00E9\u00E9", options).size() == 3);
  CHECK(split("\u00E9\u00E9\u00E9\u00E9", options) == Strings{"[UNK]"});
}

TEST_CASE("A vocabulary may do without the unknown token until a word cannot be spelled") {
  WordPieceOptions options;
  options.unk_token = "<unk>";
  CHECK(split("unaffable", options) == Strings{"unaff", "##able"});
  CHECK_THROWS_WITH(split("unaffx", options),
                    Catch::Contains("lacks 'unaffx' and the unknown token '<unk>'"));
}
