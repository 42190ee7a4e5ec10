#include "graft/text/regex.hpp"

#include <catch2/catch.hpp>
#include <string>
#include <utility>
#include <vector>

using graft::ValueError;
using graft::text::Regex;

namespace {

std::vector<std::string> matches(const std::string& pattern, const std::string& text) {
  std::vector<std::string> found;
  Regex(pattern).for_each_match(text, [&](std::size_t begin, std::size_t end) {
    found.push_back(text.substr(begin, end - begin));
  });
  return found;
}

using Strings = std::vector<std::string>;

}  // namespace

TEST_CASE("Classes are Unicode's") {
  CHECK(matches(R"(\p{L}+)", "Gr\u00F6\u00DFe \u03B1\u03B2 12") ==
        Strings{"Gr\u00F6\u00DFe", "\u03B1\u03B2"});
  CHECK(matches(R"(\s+)", "a\u00A0\u3000b\u0085c\u180Ed\u200Be") ==
        Strings{"\u00A0\u3000", "\u0085"});
  CHECK(matches(R"([^\s\p{L}]+)", "a1 \u20AC\u00A0b") == Strings{"1", "\u20AC"});
  CHECK(matches(R"(\w+)", "a\u0301b_\u203F9-\u2074\u200D") == Strings{"a\u0301b_\u203F9"});
  // Single characters of Latin-1 have a table of their own in Oniguruma.
  CHECK(matches(R"(\w+)", "-\u00B2x\u00BD-") == Strings{"\u00B2x\u00BD"});
  CHECK(matches(R"([\w]+)", "-\u00B2x\u00BD-") == Strings{"x"});
  CHECK(matches(R"([^\W\d_]+)", "a1b_\u0301c") == Strings{"a", "b", "\u0301c"});
  CHECK(matches(R"([\W_]+)", "a_ b") == Strings{"_ "});
  CHECK(matches(R"([[:punct:]]+)", "a+.\u20AC b") == Strings{"+.\u20AC"});
  CHECK(matches(R"(\h+)", "xFa9 g") == Strings{"Fa9"});
  CHECK(matches("\\bb\u0301?\\b", "b\u0301b b") == Strings{"b"});
  CHECK(matches(R"(\S+)", " ab \u2028 c") == Strings{"ab", "c"});
}

TEST_CASE("Lookahead, possessive quantifiers and inline flags work") {
  CHECK(matches(R"(\s+(?!\S)|\s+)", "a   b ") == Strings{"  ", " ", " "});
  CHECK(matches(R"((?i:'s|'LL))", "it'S we'll 's") == Strings{"'S", "'ll", "'s"});
  CHECK(matches(R"([^\r\n\p{L}]?+\p{L}+)", "1ab cd") == Strings{"1ab", " cd"});
  CHECK(matches(R"(^x$)", "x\nx") == Strings{"x", "x"});
}

TEST_CASE("Empty matches advance by a character and do not follow another match") {
  std::vector<std::pair<std::size_t, std::size_t>> found;
  Regex("b*").for_each_match("\u00E9bb\u00E9",
                             [&](std::size_t b, std::size_t e) { found.emplace_back(b, e); });
  using Pair = std::pair<std::size_t, std::size_t>;
  CHECK(found == std::vector<Pair>{{0, 0}, {2, 4}, {6, 6}});
}

TEST_CASE("A literal bracket in the first place of a set is no end") {
  CHECK(matches(R"([]a]+)", "x]a]y") == Strings{"]a]"});
  CHECK(matches(R"([^]a]+)", "]xy]") == Strings{"xy"});
  CHECK(matches(R"([[:digit:]x]+)", "a1x") == Strings{"1x"});
}

TEST_CASE("Patterns that cannot be right are refused with the pattern") {
  for (const char* pattern : {"(", "[a", "a{2,1}", "[a-z&&[^b]]", "[a[b]]", "\\p{Nonsense}", "\xFF",
                              "[[:alpha", "(?<=a+)b"}) {
    CAPTURE(pattern);
    CHECK_THROWS_AS(Regex(pattern), ValueError);
  }
  CHECK_THROWS_WITH(Regex("x("), Catch::Contains("x("));
}

TEST_CASE("A pattern that explodes stops with an error") {
  const Regex regex("(a|a|aa)+$");
  const std::string text = std::string(60, 'a') + "b";
  CHECK_THROWS_AS(regex.for_each_match(text, [](std::size_t, std::size_t) {}), ValueError);
}

TEST_CASE("Groups over long words match to the end") {
  const std::string text(300'000, 'x');
  CHECK(matches(R"(((?=\p{L})([^A-Z]))+)", text) == Strings{text});
}
