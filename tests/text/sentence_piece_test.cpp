#include "graft/text/sentence_piece.hpp"

#include <catch2/catch.hpp>
#include <filesystem>
#include <string>
#include <vector>

#include "graft/io/mapped_file.hpp"

namespace {

namespace fs = std::filesystem;
using graft::IoError;

std::string model_bytes(const std::string& name) {
  return graft::io::read_file(fs::path(GRAFT_SOURCE_DIR) / "tests" / "cases" / "tokenizer" / name /
                              "tokenizer.model");
}

}  // namespace

TEST_CASE("bos and eos are added as asked") {
  const std::string bytes = model_bytes("sp_bpe");
  const auto plain = graft::text::tokenizer_from_sentence_piece(bytes, "m.model");
  const auto framed = graft::text::tokenizer_from_sentence_piece(
      bytes, "m.model", {.add_bos = true, .add_eos = true});
  CHECK(plain.token(plain.bos_id()) == "<s>");
  CHECK(plain.token(plain.eos_id()) == "</s>");
  CHECK(plain.token(plain.unk_id()) == "<unk>");
  auto ids = plain.encode("the boats");
  CHECK_FALSE(plain.adds_bos());
  CHECK(framed.adds_bos());
  CHECK(framed.adds_eos());
  ids.insert(ids.begin(), plain.bos_id());
  ids.push_back(plain.eos_id());
  CHECK(framed.encode("the boats") == ids);
}

TEST_CASE("A file that is cut anywhere is refused or loads, and never reads beyond its end") {
  for (const char* name : {"sp_unigram", "sp_bpe_unk"}) {
    const std::string bytes = model_bytes(name);
    int loaded = 0, refused = 0;
    for (std::size_t size = 0; size < bytes.size(); size += 7) {
      try {
        // A copy of exactly this size, so that a sanitizer sees every step too far.
        const std::vector<char> cut(bytes.begin(),
                                    bytes.begin() + static_cast<std::ptrdiff_t>(size));
        graft::text::tokenizer_from_sentence_piece({cut.data(), cut.size()}, "m.model")
            .encode("ab c");
        ++loaded;
      } catch (const IoError& error) {
        ++refused;
        REQUIRE_THAT(error.what(), Catch::Contains("m.model"));
      } catch (const graft::ValueError&) {
        ++loaded;  // text outside of what is left of the vocabulary
      }
    }
    CHECK(loaded > 0);
    CHECK(refused > 0);
  }
}

TEST_CASE("What is no model is refused") {
  using Catch::Contains;
  const auto load = [](std::string_view bytes) {
    return graft::text::tokenizer_from_sentence_piece(bytes, "m.model");
  };
  CHECK_THROWS_WITH(load(""), Contains("no pieces"));
  CHECK_THROWS_WITH(load("{\"model\": 1}"), Contains("m.model"));
  CHECK_THROWS_WITH(load(std::string(12, '\xFF')), Contains("64 bits"));
  // One piece "a", then a trainer of type 4 (characters).
  const std::string piece(
      "\x0A\x03\x0A\x01"
      "a",
      5);
  CHECK_NOTHROW(load(piece));
  CHECK_THROWS_WITH(load(piece + std::string("\x12\x02\x18\x04", 4)), Contains("type 4"));
}
