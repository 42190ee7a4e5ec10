#pragma once

#include <cstddef>
#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "graft/base/types.hpp"
#include "graft/text/normalizer.hpp"
#include "graft/text/regex.hpp"
#include "graft/text/unicode.hpp"

namespace graft::inline v0_1::text {

/// A stretch of normalised text that the model tokenises by itself.
struct Piece {
  std::string_view text;
  Index offset = 0;               ///< where it begins in the normalised text
  const Index* origin = nullptr;  ///< place of each byte there, if the piece was rewritten
  bool at_start = false;          ///< it begins where the whole input begins

  Piece slice(std::size_t begin, std::size_t end) const {
    const auto shift = static_cast<Index>(begin);
    return {text.substr(begin, end - begin), origin == nullptr ? offset + shift : origin[begin],
            origin == nullptr ? nullptr : origin + begin, at_start && begin == 0};
  }
  /// Place in the normalised text of a byte of the piece.
  Index place(std::size_t byte) const {
    return origin == nullptr ? offset + static_cast<Index>(byte) : origin[byte];
  }
};

/// Pieces, and the storage of those whose text was rewritten.
class Pieces {
 public:
  explicit Pieces(const Piece& whole) : list_{whole} {}

  const std::vector<Piece>& list() const { return list_; }

  /// Replaces each piece by those that `split(piece, emit)` emits; empty ones are dropped.
  template <class Split>
  void split(Split&& split) {
    std::vector<Piece> next;
    next.reserve(list_.size());
    const auto emit = [&](const Piece& piece) {
      if (!piece.text.empty()) next.push_back(piece);
    };
    for (const Piece& piece : list_) split(piece, emit);
    list_.swap(next);
  }

  /// Starts a rewritten version of a piece.
  class Rewriter {
   public:
    explicit Rewriter(Pieces& owner)
        : text_(owner.texts_.emplace_back()), origin_(owner.origins_.emplace_back()) {}
    void append(std::string_view text, Index place) {
      text_.append(text);
      origin_.insert(origin_.end(), text.size(), place);
    }
    Piece finish(const Piece& source) const {
      return {text_, source.offset, origin_.data(), source.at_start};
    }

   private:
    std::string& text_;
    std::vector<Index>& origin_;
  };
  Rewriter rewrite() { return Rewriter(*this); }

 private:
  std::vector<Piece> list_;
  std::deque<std::string> texts_;  // deques: growing them moves no element
  std::deque<std::vector<Index>> origins_;
};

/// What becomes of the matches that a text is split at.
enum class SplitBehavior { removed, isolated, merged_with_previous, merged_with_next, contiguous };

/// Which pieces get a mark before them.
enum class PrependScheme { always, first, never };

namespace detail {

/// Splits a piece at matches; `matches(visit)` calls `visit(begin, end)` from left to right. With
/// `invert`, what lies between the matches plays their part.
template <class Matches, class Emit>
void split_piece(const Piece& piece, SplitBehavior behavior, bool invert, Matches&& matches,
                 Emit&& emit) {
  if (behavior == SplitBehavior::isolated) {  // the frequent case, without a list of parts
    std::size_t previous = 0;
    matches([&](std::size_t begin, std::size_t end) {
      if (begin > previous) emit(piece.slice(previous, begin));
      if (end > begin) emit(piece.slice(begin, end));
      previous = end;
    });
    if (previous < piece.text.size()) emit(piece.slice(previous, piece.text.size()));
    return;
  }
  struct Part {
    std::size_t begin, end;
    bool match;
  };
  std::vector<Part> parts;
  std::size_t previous = 0;
  matches([&](std::size_t begin, std::size_t end) {
    if (begin > previous) parts.push_back({previous, begin, invert});
    parts.push_back({begin, end, !invert});
    previous = end;
  });
  if (previous < piece.text.size()) parts.push_back({previous, piece.text.size(), invert});

  switch (behavior) {
    case SplitBehavior::isolated:
      break;  // above
    case SplitBehavior::removed:
      for (const Part& part : parts) {
        if (!part.match) emit(piece.slice(part.begin, part.end));
      }
      break;
    case SplitBehavior::contiguous:
      for (std::size_t i = 0; i < parts.size();) {
        std::size_t last = i;
        while (last + 1 < parts.size() && parts[last + 1].match == parts[i].match) ++last;
        emit(piece.slice(parts[i].begin, parts[last].end));
        i = last + 1;
      }
      break;
    case SplitBehavior::merged_with_previous:
      for (std::size_t i = 0; i < parts.size(); ++i) {
        const bool joins = !parts[i].match && i + 1 < parts.size() && parts[i + 1].match;
        emit(piece.slice(parts[i].begin, parts[joins ? i + 1 : i].end));
        if (joins) ++i;
      }
      break;
    case SplitBehavior::merged_with_next:
      for (std::size_t i = 0; i < parts.size(); ++i) {
        const bool joins = parts[i].match && i + 1 < parts.size() && !parts[i + 1].match;
        emit(piece.slice(parts[i].begin, parts[joins ? i + 1 : i].end));
        if (joins) ++i;
      }
      break;
  }
}

/// Splits at each code point that `is_match` accepts.
template <class IsMatch, class Emit>
void split_at_code_points(const Piece& piece, SplitBehavior behavior, IsMatch&& is_match,
                          Emit&& emit) {
  split_piece(
      piece, behavior, false,
      [&](auto&& visit) {
        for_each_code_point(piece.text, [&](char32_t c, std::size_t offset, std::size_t length) {
          if (is_match(c)) visit(offset, offset + length);
        });
      },
      emit);
}

}  // namespace detail

/// Splitting steps by the names of `tokenizer.json`.
namespace pre_tokenizers {

/// Splits as GPT-2 does (`use_regex`), then hands bytes to the model in their printable form.
/// Source: Radford et al. 2019, the released encoder.
struct ByteLevel {
  bool add_prefix_space = false;
  bool use_regex = true;

  static const Regex& regex() {
    static const Regex pattern(
        R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)");
    return pattern;
  }
  void operator()(Pieces& pieces) const {
    if (add_prefix_space) {
      pieces.split([&](const Piece& piece, auto&& emit) {
        if (piece.text.starts_with(' ')) return emit(piece);
        Pieces::Rewriter rewriter = pieces.rewrite();
        rewriter.append(" ", piece.place(0));
        for (std::size_t i = 0; i < piece.text.size(); ++i)
          rewriter.append(piece.text.substr(i, 1), piece.place(i));
        emit(rewriter.finish(piece));
      });
    }
    if (!use_regex) return;
    pieces.split([&](const Piece& piece, auto&& emit) {
      detail::split_piece(
          piece, SplitBehavior::isolated, false,
          [&](auto&& visit) { regex().for_each_match(piece.text, visit); }, emit);
    });
  }
};

/// Writes out the byte-level form; needed only where a further step follows `ByteLevel`, since the
/// model takes bytes otherwise.
struct SpellBytes {
  void operator()(Pieces& pieces) const {
    pieces.split([&](const Piece& piece, auto&& emit) {
      Pieces::Rewriter rewriter = pieces.rewrite();
      for (std::size_t i = 0; i < piece.text.size(); ++i) {
        rewriter.append(ByteAlphabet::get().text(static_cast<unsigned char>(piece.text[i])),
                        piece.place(i));
      }
      emit(rewriter.finish(piece));
    });
  }
};

struct Split {
  Pattern pattern;
  SplitBehavior behavior = SplitBehavior::isolated;
  bool invert = false;
  void operator()(Pieces& pieces) const {
    pieces.split([&](const Piece& piece, auto&& emit) {
      detail::split_piece(
          piece, behavior, invert,
          [&](auto&& visit) { for_each_match(pattern, piece.text, visit); }, emit);
    });
  }
};

/// Numbers (category N) apart from the rest, digit by digit if `individual_digits`.
struct Digits {
  bool individual_digits = false;
  void operator()(Pieces& pieces) const {
    const auto behavior = individual_digits ? SplitBehavior::isolated : SplitBehavior::contiguous;
    pieces.split([&](const Piece& piece, auto&& emit) {
      detail::split_at_code_points(piece, behavior, is_number, emit);
    });
  }
};

struct Punctuation {
  SplitBehavior behavior = SplitBehavior::isolated;
  void operator()(Pieces& pieces) const {
    pieces.split([&](const Piece& piece, auto&& emit) {
      detail::split_at_code_points(piece, behavior, is_punctuation, emit);
    });
  }
};

/// Words at white space, which goes, and at punctuation, which stays.
struct Bert {
  void operator()(Pieces& pieces) const {
    pieces.split([&](const Piece& piece, auto&& emit) {
      detail::split_at_code_points(piece, SplitBehavior::removed, is_white_space, emit);
    });
    Punctuation{}(pieces);
  }
};

struct WhitespaceSplit {
  void operator()(Pieces& pieces) const {
    pieces.split([&](const Piece& piece, auto&& emit) {
      detail::split_at_code_points(piece, SplitBehavior::removed, is_white_space, emit);
    });
  }
};

/// Runs of word characters, runs of other characters; white space goes.
struct Whitespace {
  void operator()(Pieces& pieces) const {
    const auto kind = [](char32_t c) {
      return is_white_space(c) ? 0 : is_word_character(c) ? 1 : 2;
    };
    pieces.split([&](const Piece& piece, auto&& emit) {
      std::size_t begin = 0;
      int current = 0;
      for_each_code_point(piece.text, [&](char32_t c, std::size_t offset, std::size_t) {
        const int next = kind(c);
        if (next == current) return;
        if (current != 0) emit(piece.slice(begin, offset));
        begin = offset;
        current = next;
      });
      if (current != 0) emit(piece.slice(begin, piece.text.size()));
    });
  }
};

struct CharDelimiterSplit {
  char32_t delimiter = ' ';
  void operator()(Pieces& pieces) const {
    pieces.split([&](const Piece& piece, auto&& emit) {
      detail::split_at_code_points(
          piece, SplitBehavior::removed, [&](char32_t c) { return c == delimiter; }, emit);
    });
  }
};

/// Writes blanks as a visible mark, puts one before (each piece, the first, or none) and, with
/// `split`, begins a piece at each mark.
struct Metaspace {
  std::string replacement = "\xE2\x96\x81";
  PrependScheme prepend_scheme = PrependScheme::always;
  bool split = true;
  void operator()(Pieces& pieces) const {
    pieces.split([&](const Piece& piece, auto&& emit) {
      const bool wanted = prepend_scheme == PrependScheme::always ||
                          (prepend_scheme == PrependScheme::first && piece.at_start);
      const bool prepend =
          wanted && !piece.text.starts_with(' ') && !piece.text.starts_with(replacement);
      Pieces::Rewriter rewriter = pieces.rewrite();
      if (prepend) rewriter.append(replacement, piece.place(0));
      for (std::size_t i = 0; i < piece.text.size(); ++i) {
        const bool blank = piece.text[i] == ' ';
        rewriter.append(blank ? std::string_view(replacement) : piece.text.substr(i, 1),
                        piece.place(i));
      }
      const Piece rewritten = rewriter.finish(piece);
      if (!split) return emit(rewritten);
      detail::split_piece(
          rewritten, SplitBehavior::merged_with_next, false,
          [&](auto&& visit) { for_each_match(Pattern(replacement), rewritten.text, visit); }, emit);
    });
  }
};

/// Cuts where the script changes; characters without one go with those before them, and at the
/// start they are dropped.
struct UnicodeScripts {
  void operator()(Pieces& pieces) const {
    pieces.split([&](const Piece& piece, auto&& emit) {
      int current = -1;
      std::size_t begin = piece.text.size(), next = 0;
      for (std::size_t i = 0; i < piece.text.size(); i = next) {
        const auto character = decode_utf8(piece.text, i);
        next = i + utf8_length(piece.text[i]);
        const int script = script_of(character.value);
        if (script < 0 || script == current) continue;
        if (current >= 0) emit(piece.slice(begin, i));
        begin = i;
        current = script;
      }
      emit(piece.slice(begin, piece.text.size()));
    });
  }
};

/// Cuts into runs of `length` characters.
struct FixedLength {
  std::size_t length = 5;
  void operator()(Pieces& pieces) const {
    pieces.split([&](const Piece& piece, auto&& emit) {
      const std::string_view text = piece.text;
      std::size_t begin = 0, count = 0;
      for (std::size_t i = 0; i < text.size(); i += utf8_length(text[i])) {
        if (count++ == length) {
          emit(piece.slice(begin, i));
          begin = i;
          count = 1;
        }
      }
      if (begin < text.size()) emit(piece.slice(begin, text.size()));
    });
  }
};

/// Where a text whose blanks are written U+2581 may be cut before tokenising without changing the
/// result: before a mark that follows something else, unless a token reaches across there. The
/// words between the cuts can then be remembered.
class MarkBoundaries {
 public:
  MarkBoundaries() = default;
  /// `tokens(visit)` calls `visit(token)` for everything that a merge can produce.
  template <class Tokens>
  explicit MarkBoundaries(Tokens&& tokens) {
    usable_ = true;
    tokens([&](std::string_view token) {
      for (std::size_t i = next(token, 0); i != token.npos; i = next(token, i)) {
        usable_ = usable_ && across_.size() < kMaxAcross;
        if (!usable_) return;
        across_.emplace_back(token.substr(0, i), token.substr(i));
      }
    });
  }

  void operator()(Pieces& pieces) const {
    if (!usable_) return;
    pieces.split([&](const Piece& piece, auto&& emit) {
      std::size_t begin = 0;
      for (std::size_t i = next(piece.text, 0); i != piece.text.npos; i = next(piece.text, i)) {
        bool crossed = false;
        for (const auto& [before, after] : across_) {
          crossed = crossed || (piece.text.substr(0, i).ends_with(before) &&
                                piece.text.substr(i).starts_with(after));
        }
        if (crossed) continue;
        emit(piece.slice(begin, i));
        begin = i;
      }
      emit(piece.slice(begin, piece.text.size()));
    });
  }

 private:
  static constexpr std::string_view kMark = "\xE2\x96\x81";
  static constexpr std::size_t kMaxAcross = 16;

  /// The first mark after `from` that follows something else than a mark.
  static std::size_t next(std::string_view text, std::size_t from) {
    for (std::size_t i = text.find(kMark, from + 1); i != text.npos; i = text.find(kMark, i + 1)) {
      if (!text.substr(0, i).ends_with(kMark)) return i;
    }
    return text.npos;
  }

  bool usable_ = false;
  std::vector<std::pair<std::string, std::string>> across_;
};

}  // namespace pre_tokenizers

using PreTokenizerStep =
    std::variant<pre_tokenizers::ByteLevel, pre_tokenizers::SpellBytes, pre_tokenizers::Split,
                 pre_tokenizers::Digits, pre_tokenizers::Punctuation, pre_tokenizers::Bert,
                 pre_tokenizers::WhitespaceSplit, pre_tokenizers::Whitespace,
                 pre_tokenizers::CharDelimiterSplit, pre_tokenizers::Metaspace,
                 pre_tokenizers::FixedLength, pre_tokenizers::UnicodeScripts,
                 pre_tokenizers::MarkBoundaries>;

/// Splitting steps, applied in order.
struct PreTokenizer {
  std::vector<PreTokenizerStep> steps;

  void operator()(Pieces& pieces) const {
    for (const PreTokenizerStep& step : steps)
      std::visit([&](const auto& split) { split(pieces); }, step);
  }
};

}  // namespace graft::inline v0_1::text
