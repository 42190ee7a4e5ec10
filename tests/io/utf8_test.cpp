#include "graft/io/utf8.hpp"

#include <catch2/catch.hpp>
#include <string>
#include <string_view>

using graft::io::is_utf8;

namespace {

std::string encode(unsigned point) {
  std::string text;
  const auto put = [&](unsigned byte) { text.push_back(static_cast<char>(byte)); };
  if (point < 0x80) {
    put(point);
  } else if (point < 0x800) {
    put(0xC0 | point >> 6);
    put(0x80 | (point & 63));
  } else if (point < 0x10000) {
    put(0xE0 | point >> 12);
    put(0x80 | (point >> 6 & 63));
    put(0x80 | (point & 63));
  } else {
    put(0xF0 | point >> 18);
    put(0x80 | (point >> 12 & 63));
    put(0x80 | (point >> 6 & 63));
    put(0x80 | (point & 63));
  }
  return text;
}

}  // namespace

TEST_CASE("every code point but the surrogates is UTF-8, and no part of one") {
  for (unsigned point = 0; point < 0x120000; ++point) {
    const std::string text = encode(point);
    const bool valid = point < 0x110000 && (point < 0xD800 || point > 0xDFFF);
    if (is_utf8(text) != valid) FAIL("code point " << point);
    for (std::size_t size = 1; size < text.size(); ++size) {
      if (is_utf8(std::string_view(text).substr(0, size))) FAIL("a part of code point " << point);
      if (is_utf8(std::string_view(text).substr(size))) FAIL("the end of code point " << point);
    }
  }
  CHECK(is_utf8(""));
  CHECK(is_utf8("a\xC3\xA4\xE2\x82\xAC\xF0\x9F\x98\x80"));
}

TEST_CASE("overlong forms and stray bytes are not UTF-8") {
  for (const char* text : {"\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xE0\x80\x80", "\xE0\x9F\xBF",
                           "\xF0\x80\x80\x80", "\xF0\x8F\xBF\xBF", "\xF5\x80\x80\x80", "\xFE",
                           "\xFF", "a\xC3", "\xC3(", "\xE2\x82(", "\xE2(\xAC"}) {
    CHECK_FALSE(is_utf8(text));
  }
}
