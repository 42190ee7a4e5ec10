#include "graft/text/pre_tokenizer.hpp"

#include <catch2/catch.hpp>
#include <string>
#include <vector>

using namespace graft::text;
namespace p = graft::text::pre_tokenizers;

namespace {

using Strings = std::vector<std::string>;

template <class Step>
Strings split(const Step& step, const std::string& text, bool at_start = true) {
  Pieces pieces(Piece{text, 0, nullptr, at_start});
  step(pieces);
  Strings list;
  for (const Piece& piece : pieces.list()) list.emplace_back(piece.text);
  return list;
}

Strings split(SplitBehavior behavior, bool invert = false) {
  return split(p::Split{std::string("-"), behavior, invert}, "-a--b-");
}

}  // namespace

TEST_CASE("Matches go, stay alone, or join what is before or after them") {
  CHECK(split(SplitBehavior::removed) == Strings{"a", "b"});
  CHECK(split(SplitBehavior::isolated) == Strings{"-", "a", "-", "-", "b", "-"});
  CHECK(split(SplitBehavior::contiguous) == Strings{"-", "a", "--", "b", "-"});
  CHECK(split(SplitBehavior::merged_with_previous) == Strings{"-", "a-", "-", "b-"});
  CHECK(split(SplitBehavior::merged_with_next) == Strings{"-a", "-", "-b", "-"});
  CHECK(split(SplitBehavior::removed, true) == Strings{"-", "-", "-", "-"});
}

TEST_CASE("Steps split as their names say") {
  CHECK(split(p::ByteLevel{}, "I'm 12  km") == Strings{"I", "'m", " 12", " ", " km"});
  CHECK(split(p::ByteLevel{true, false}, "ab") == Strings{" ab"});
  CHECK(split(p::ByteLevel{true, false}, " ab") == Strings{" ab"});
  CHECK(split(p::Digits{true}, "a12\u00BDb") == Strings{"a", "1", "2", "\u00BD", "b"});
  CHECK(split(p::Digits{false}, "a12b3") == Strings{"a", "12", "b", "3"});
  CHECK(split(p::Bert{}, " don't\u3000$5. ") == Strings{"don", "'", "t", "$", "5", "."});
  CHECK(split(p::Whitespace{}, "a_1 b!? c") == Strings{"a_1", "b", "!?", "c"});
  CHECK(split(p::WhitespaceSplit{}, " a-b\u00A0c ") == Strings{"a-b", "c"});
  CHECK(split(p::CharDelimiterSplit{'_'}, "a__b") == Strings{"a", "b"});
  CHECK(split(p::Punctuation{SplitBehavior::contiguous}, "a!?b") == Strings{"a", "!?", "b"});
  CHECK(split(p::SpellBytes{}, "a \u00E9") == Strings{"a\u0120\u00C3\u00A9"});
}

TEST_CASE("Metaspace puts its mark where it is asked to") {
  const std::string m = "\u2581";
  CHECK(split(p::Metaspace{}, "a b") == Strings{m + "a", m + "b"});
  CHECK(split(p::Metaspace{}, " a") == Strings{m + "a"});
  CHECK(split(p::Metaspace{m, PrependScheme::never, true}, "a b") == Strings{"a", m + "b"});
  CHECK(split(p::Metaspace{m, PrependScheme::first, false}, "a b") == Strings{m + "a" + m + "b"});
  CHECK(split(p::Metaspace{m, PrependScheme::first, false}, "a b", false) ==
        Strings{"a" + m + "b"});
}

TEST_CASE("Rewritten pieces know where their bytes come from") {
  const std::string text = "ab cd";
  Pieces pieces(Piece{text, 100, nullptr, true});
  p::Metaspace{}(pieces);
  p::Split{std::string("d"), SplitBehavior::isolated, false}(pieces);
  REQUIRE(pieces.list().size() == 3);
  CHECK(pieces.list()[0].place(0) == 100);  // the mark that was put before
  CHECK(pieces.list()[0].place(3) == 100);
  CHECK(pieces.list()[0].place(4) == 101);
  CHECK(pieces.list()[1].place(0) == 102);  // the blank
  CHECK(pieces.list()[1].place(3) == 103);
  CHECK(pieces.list()[2].text == "d");
  CHECK(pieces.list()[2].place(0) == 104);
  CHECK(pieces.list()[0].at_start);
  CHECK_FALSE(pieces.list()[1].at_start);
}
