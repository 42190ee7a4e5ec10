#include "graft/text/normalizer.hpp"

#include <catch2/catch.hpp>
#include <cstring>
#include <string>
#include <vector>

using namespace graft::text;
namespace n = graft::text::normalizers;

namespace {

/// A character map in its file format: keys of one byte each, in a trie of two levels.
std::string small_map(const std::vector<std::pair<char, std::string>>& entries) {
  std::vector<std::uint32_t> units(1024, 0);
  std::string strings;
  units[0] = 256U << 10;  // the root's children start at unit 256
  for (const auto& [key, replacement] : entries) {
    const std::size_t node = 256U ^ static_cast<unsigned char>(key);
    const std::size_t leaf = 512U + static_cast<unsigned char>(key);
    units[node] = static_cast<std::uint32_t>(((node ^ leaf) << 10) | (1U << 8) |
                                             static_cast<unsigned char>(key));
    units[leaf] = static_cast<std::uint32_t>(strings.size()) | 0x80000000U;
    strings += replacement + '\0';
  }
  const auto bytes = static_cast<std::uint32_t>(units.size() * 4);
  std::string blob(4 + bytes, '\0');
  std::memcpy(blob.data(), &bytes, 4);
  std::memcpy(blob.data() + 4, units.data(), bytes);
  return blob + strings;
}

}  // namespace

TEST_CASE("BERT's normaliser cleans, spaces ideographs, strips accents and lowers the case") {
  const n::Bert bert;
  CHECK(bert("H\u00C9llo\tW\u00F6RLD\u00A0\u200D\x01!") == "hello world !");
  CHECK(bert("a\u4E2D\u6587b") == "a \u4E2D  \u6587 b");
  n::Bert cased;
  cased.lowercase = false;
  CHECK(cased("H\u00C9") == "H\u00C9");
  cased.strip_accents = true;
  CHECK(cased("H\u00C9") == "HE");
}

TEST_CASE("Small normalisers do what their names say") {
  CHECK(n::Strip{true, false}(" \u00A0a b \n") == "a b \n");
  CHECK(n::Strip{false, true}(" a \n") == " a");
  CHECK(n::Strip{}("  \n").empty());
  CHECK(n::Replace{Regex("\\s+"), "_"}("a  b\nc ") == "a_b_c_");
  CHECK(n::Replace{std::string("ab"), ""}("abab-ab") == "-");
  CHECK(n::Prepend{"_"}("x") == "_x");
  CHECK(n::Prepend{"_"}("").empty());
  CHECK(n::StripAccents{}("e\u0301\u00E9") == "e\u00E9");
  CHECK(n::ByteLevel{}("\u00E9 ") == "\u00C3\u00A9\u0120");
  CHECK(replace_all("aaa", "aa", "b") == "ba");
}

TEST_CASE("A character map is read from its trie") {
  const CharacterMap map(small_map({{'a', "A"}, {'\t', " "}, {'x', ""}}));
  CHECK(map.longest_prefix("abc") == std::pair<std::size_t, std::string_view>(1, "A"));
  CHECK(map.longest_prefix("b").first == 0);
  CHECK(n::Precompiled{map}("a\txb") == "A b");
}

TEST_CASE("A broken character map is refused or finds nothing, but reads nothing outside") {
  const std::string blob = small_map({{'a', "A"}});
  for (std::size_t size = 1; size < 4 + 4096; size += 97)
    CHECK_THROWS_AS(CharacterMap(blob.substr(0, size)), graft::ValueError);
  CHECK_NOTHROW(CharacterMap(""));
  CHECK(CharacterMap(blob.substr(0, 4 + 4096)).longest_prefix("a").first == 0);  // no strings
  std::string wild = blob;
  for (std::size_t i = 4; i < 4 + 4096; ++i) wild[i] = static_cast<char>(i * 37);
  const CharacterMap map(wild);
  for (int c = 1; c < 128; ++c) map.longest_prefix(std::string(3, static_cast<char>(c)));
}

TEST_CASE("SentencePiece's normaliser handles blanks as asked") {
  const std::string mark = "\u2581";
  SentencePieceNormalizer normalize;
  CHECK(normalize("  a  b ") == mark + "a" + mark + "b");
  CHECK(normalize("   ").empty());
  CHECK(normalize("").empty());
  normalize.remove_extra_whitespaces = false;
  CHECK(normalize(" a  b ") == mark + mark + "a" + mark + mark + "b" + mark);
  normalize.add_dummy_prefix = false;
  normalize.escape_whitespaces = false;
  CHECK(normalize(" a ") == " a ");
  normalize.map = CharacterMap(small_map({{'a', "bb"}}));
  normalize.user_defined = [](std::string_view text) -> std::size_t {
    return text.starts_with("xa") ? 2 : 0;
  };
  CHECK(normalize("axa") == "bbxa");
}
