#include "graft/text/word_level.hpp"

#include <catch2/catch.hpp>

using namespace graft::text;

TEST_CASE("A piece is a token of the vocabulary or the unknown one") {
  Vocabulary vocabulary;
  for (const char* token : {"[UNK]", "graft", "café"})
    vocabulary.add(token, static_cast<std::int32_t>(vocabulary.size()));
  const WordLevelModel model(vocabulary, "[UNK]");
  std::vector<TokenPart> parts;
  for (const char* word : {"café", "graf", "graft", ""}) model.tokenize(word, parts);
  std::vector<std::int32_t> ids;
  for (const auto& part : parts) ids.push_back(part.id);
  CHECK(ids == std::vector<std::int32_t>{2, 0, 1, 0});

  const WordLevelModel closed(vocabulary, "<unk>");
  vocabulary.add("<unk>", 3);  // too late
  parts.clear();
  closed.tokenize("graft", parts);
  REQUIRE(parts.size() == 1);
  CHECK(parts[0].id == 1);
  CHECK_THROWS_WITH(closed.tokenize("graf", parts),
                    Catch::Contains("lacks 'graf' and the unknown token '<unk>'"));
  CHECK(parts.size() == 1);
}
