#include "graft/text/unicode.hpp"

#include <catch2/catch.hpp>
#include <set>
#include <string>
#include <vector>

using namespace graft::text;

TEST_CASE("Every code point survives encoding and decoding") {
  int wrong = 0;
  for (char32_t c = 0; c <= 0x10FFFF; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    append_utf8(text, c);
    const DecodedCodePoint back = decode_utf8(text, 0);
    const bool same = back.valid && back.value == c && back.length == text.size() &&
                      utf8_length(text[0]) == text.size() && is_valid_utf8(text);
    wrong += same ? 0 : 1;
  }
  CHECK(wrong == 0);
}

TEST_CASE("Invalid UTF-8 becomes one replacement character for each maximal subpart") {
  // The examples of the Unicode standard, tables 3-8 to 3-11.
  const std::string r(kReplacementText);
  CHECK(replace_invalid_utf8("\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41") ==
        r + r + r + r + r + r + r + r + "A");
  CHECK(replace_invalid_utf8("\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41") ==
        r + r + r + r + r + r + r + r + "A");
  CHECK(replace_invalid_utf8("\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42") ==
        r + r + r + r + r + "A" + r + r + "B");
  CHECK(replace_invalid_utf8("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41") == r + r + r + r + "A");
  CHECK(replace_invalid_utf8("gut \xC3\xA4\n") == "gut \xC3\xA4\n");
  CHECK(decode_utf8("\xE2\x82", 0).truncated);
  CHECK_FALSE(decode_utf8("\xE2X", 0).truncated);
}

TEST_CASE("The byte alphabet is reversible and leaves printable ASCII alone") {
  const ByteAlphabet& alphabet = ByteAlphabet::get();
  std::set<std::string> spellings;
  std::string bytes;
  for (int b = 0; b < 256; ++b) {
    bytes.push_back(static_cast<char>(b));
    const std::string& text = alphabet.text(static_cast<unsigned char>(b));
    spellings.insert(text);
    if (b > ' ' && b < 0x7F) CHECK(text == std::string(1, static_cast<char>(b)));
  }
  CHECK(spellings.size() == 256);
  std::string back = "kept ";
  REQUIRE(alphabet.decode(alphabet.encode(bytes), back));
  CHECK(back == "kept " + bytes);
  CHECK(alphabet.encode(" \n") == "\u0120\u010A");
  CHECK_FALSE(alphabet.decode("abc def", back));  // a blank stands for nothing
  CHECK(back == "kept " + bytes);
}

TEST_CASE("Case and normal forms follow Unicode") {
  CHECK(lowercase("\u00C4\u0130X\u03A3\U00010400") == "\u00E4i\u0307x\u03C3\U00010428");
  CHECK(normalize_unicode("e\u0301", NormalizationForm::nfc) == "\u00E9");
  CHECK(normalize_unicode("\u00E9", NormalizationForm::nfd) == "e\u0301");
  CHECK(normalize_unicode("\uFB01\u2460", NormalizationForm::nfkc) == "fi1");
  CHECK(normalize_unicode("\uFB01\u00E9", NormalizationForm::nfkd) == "fie\u0301");
  CHECK(is_punctuation('$'));
  CHECK(is_punctuation(0x3002));
  CHECK_FALSE(is_punctuation(0x20AC));  // a currency sign outside of ASCII is a symbol
  CHECK(is_number(0xBD));
  CHECK(is_white_space(0x3000));
  CHECK_FALSE(is_white_space(0x200B));
}

TEST_CASE("Grapheme clusters keep what belongs together") {
  std::vector<std::string> clusters;
  for_each_grapheme("ae\u0301\U0001F468\u200D\U0001F469x\r\n",
                    [&](std::string_view cluster) { clusters.emplace_back(cluster); });
  CHECK(clusters ==
        std::vector<std::string>{"a", "e\u0301", "\U0001F468\u200D\U0001F469", "x", "\r\n"});
}
