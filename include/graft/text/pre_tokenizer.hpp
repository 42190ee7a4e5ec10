#pragma once

#include <cstddef>
#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "graft/base/types.hpp"
#include "graft/config.hpp"
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

/// Splitting steps by the names of `tokenizer.json`.
namespace pre_tokenizers {

/// Splits as GPT-2 does (`use_regex`), then hands bytes to the model in their printable form.
/// Source: Radford et al. 2019, the released encoder.
struct ByteLevel {
  bool add_prefix_space = false;
  bool use_regex = true;

  static const Regex& regex();
  void operator()(Pieces& pieces) const;
};

/// Writes out the byte-level form; needed only where a further step follows `ByteLevel`, since the
/// model takes bytes otherwise.
struct SpellBytes {
  void operator()(Pieces& pieces) const;
};

struct Split {
  Pattern pattern;
  SplitBehavior behavior = SplitBehavior::isolated;
  bool invert = false;
  void operator()(Pieces& pieces) const;
};

/// Numbers (category N) apart from the rest, digit by digit if `individual_digits`.
struct Digits {
  bool individual_digits = false;
  void operator()(Pieces& pieces) const;
};

struct Punctuation {
  SplitBehavior behavior = SplitBehavior::isolated;
  void operator()(Pieces& pieces) const;
};

/// Words at white space, which goes, and at punctuation, which stays.
struct Bert {
  void operator()(Pieces& pieces) const;
};

struct WhitespaceSplit {
  void operator()(Pieces& pieces) const;
};

/// Runs of word characters, runs of other characters; white space goes.
struct Whitespace {
  void operator()(Pieces& pieces) const;
};

struct CharDelimiterSplit {
  char32_t delimiter = ' ';
  void operator()(Pieces& pieces) const;
};

/// Writes blanks as a visible mark, puts one before (each piece, the first, or none) and, with
/// `split`, begins a piece at each mark.
struct Metaspace {
  std::string replacement = "\xE2\x96\x81";
  PrependScheme prepend_scheme = PrependScheme::always;
  bool split = true;
  void operator()(Pieces& pieces) const;
};

/// Cuts where the script changes; characters without one go with those before them, and at the
/// start they are dropped.
struct UnicodeScripts {
  void operator()(Pieces& pieces) const;
};

/// Cuts into runs of `length` characters.
struct FixedLength {
  std::size_t length = 5;
  void operator()(Pieces& pieces) const;
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

  void operator()(Pieces& pieces) const;

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

  void operator()(Pieces& pieces) const;
};

}  // namespace graft::inline v0_1::text

#if !defined(GRAFT_FILES_COMPILED)
#include "graft/text/impl/pre_tokenizer_impl.hpp"
#endif
