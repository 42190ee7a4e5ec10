#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "graft/base/error.hpp"
#include "graft/config.hpp"
#include "graft/text/regex.hpp"
#include "graft/text/unicode.hpp"

namespace graft::inline v0_1::text {

/// Every occurrence of `from` replaced by `to`.
GRAFT_IO std::string replace_all(std::string_view text, std::string_view from, std::string_view to);

/// What to search for: a text as it stands, or a regular expression.
using Pattern = std::variant<std::string, Regex>;

/// Calls `visit(begin, end)` for the matches of a pattern from left to right.
template <class Visit>
void for_each_match(const Pattern& pattern, std::string_view text, Visit&& visit) {
  if (const auto* regex = std::get_if<Regex>(&pattern)) {
    regex->for_each_match(text, visit);
    return;
  }
  const std::string& needle = std::get<std::string>(pattern);
  if (needle.empty()) return;
  for (std::size_t i = text.find(needle); i != text.npos; i = text.find(needle, i + needle.size()))
    visit(i, i + needle.size());
}

/// The character map that SentencePiece compiles into a model: a double-array trie from character
/// sequences to their replacements, which follow it as zero-terminated strings.
///
/// Layout: u32 size of the trie in bytes, the trie (u32 units), the strings. A unit holds an offset
/// (bits 10 and up, shifted left by 8 more if bit 9 is set), a leaf mark (bit 8) and a label
/// (bits 0 to 7 and 31); a leaf's value is its low 31 bits. Source: Darts-clone's array format.
/// Errors: ValueError when the blob does not hold together.
class CharacterMap {
 public:
  CharacterMap() = default;
  explicit CharacterMap(std::string_view blob) {
    if (blob.empty()) return;
    std::uint32_t bytes = 0;
    if (blob.size() >= 4) std::memcpy(&bytes, blob.data(), 4);
    if (blob.size() < 4 || bytes % 4 != 0 || bytes == 0 || bytes > blob.size() - 4) {
      throw ValueError(concat("character map: ", blob.size(), " bytes with a trie of ", bytes));
    }
    units_.resize(bytes / 4);
    std::memcpy(units_.data(), blob.data() + 4, bytes);
    strings_ = blob.substr(4 + bytes);
    if (!is_valid_utf8(strings_)) throw ValueError("character map: replacements are not UTF-8");
  }

  bool empty() const { return units_.empty(); }

  /// Calls `visit(length, replacement)` for each key that is a prefix of `text`, shortest first,
  /// until it returns false.
  template <class Visit>
  void for_each_prefix(std::string_view text, Visit&& visit) const {
    if (units_.empty()) return;
    std::size_t node = offset(units_[0]);
    for (std::size_t i = 0; i < text.size(); ++i) {
      const auto byte = static_cast<unsigned char>(text[i]);
      if (byte == 0) return;  // label 0 marks values
      node ^= byte;
      if (node >= units_.size()) return;
      const std::uint32_t unit = units_[node];
      if ((unit & 0x800000FFU) != byte) return;
      node ^= offset(unit);
      if (((unit >> 8) & 1U) == 0) continue;
      if (node >= units_.size()) return;
      const std::size_t begin = units_[node] & 0x7FFFFFFFU;
      if (begin >= strings_.size() || is_continuation_byte(strings_[begin])) return;
      const std::string_view tail = std::string_view(strings_).substr(begin);
      if (!visit(i + 1, tail.substr(0, tail.find('\0')))) return;
    }
  }
  /// Length and replacement of the longest key that is a prefix of `text`; length 0 if none is.
  std::pair<std::size_t, std::string_view> longest_prefix(std::string_view text) const {
    std::pair<std::size_t, std::string_view> longest{0, {}};
    for_each_prefix(text, [&](std::size_t length, std::string_view replacement) {
      longest = {length, replacement};
      return true;
    });
    return longest;
  }
  std::optional<std::string_view> shortest_prefix(std::string_view text) const {
    std::optional<std::string_view> found;
    for_each_prefix(text, [&](std::size_t, std::string_view replacement) {
      found = replacement;
      return false;
    });
    return found;
  }

 private:
  static std::size_t offset(std::uint32_t unit) {
    return static_cast<std::size_t>(unit >> 10) << ((unit & (1U << 9)) >> 6);
  }
  std::vector<std::uint32_t> units_;
  std::string strings_;
};

/// Normalisation steps by the names of `tokenizer.json`. Each maps valid UTF-8 to valid UTF-8.
namespace normalizers {

/// What BERT does before splitting: drops control characters and makes every white space a blank
/// (`clean_text`), sets CJK ideographs between blanks, removes accents (NFD without Mn; by default
/// exactly if `lowercase`), lowers the case.
/// Source: Devlin et al. 2019, "BERT", the released `BasicTokenizer`.
struct Bert {
  bool clean_text = true;
  bool handle_chinese_chars = true;
  std::optional<bool> strip_accents;
  bool lowercase = true;

  static bool is_ideograph(char32_t c);
  std::string operator()(std::string_view text) const;
};

struct Unicode {
  NormalizationForm form = NormalizationForm::nfc;
  std::string operator()(std::string_view text) const;
};

struct Lowercase {
  std::string operator()(std::string_view text) const;
};

/// Drops combining marks (general category M); precomposed letters keep theirs.
struct StripAccents {
  std::string operator()(std::string_view text) const;
};

/// Drops white space at the ends.
struct Strip {
  bool left = true;
  bool right = true;
  std::string operator()(std::string_view text) const;
};

struct Replace {
  Pattern pattern;
  std::string content;
  std::string operator()(std::string_view text) const;
};

/// Puts a text before one that is not empty.
struct Prepend {
  std::string content;
  std::string operator()(std::string_view text) const;
};

/// The character map applied to each grapheme cluster of fewer than 6 bytes, else to each of its
/// code points, taking the shortest key that fits, as the `tokenizers` library does. SentencePiece
/// itself takes the longest key at each position: see `SentencePieceNormalizer`.
struct Precompiled {
  CharacterMap map;
  std::string operator()(std::string_view text) const;
};

/// Replaces each byte by its code point of the byte-level alphabet.
struct ByteLevel {
  std::string operator()(std::string_view text) const;
};

/// The clean-up for machine translation texts: drops control characters, makes odd blanks plain.
struct Nmt {
  std::string operator()(std::string_view text) const;
};

}  // namespace normalizers

/// SentencePiece's own normalisation: the longest key of the character map at each position, then
/// blanks: doubled and outer ones removed, a dummy one put before, each written as U+2581.
/// Source: Kudo & Richardson 2018, "SentencePiece", section 3.1.
struct SentencePieceNormalizer {
  CharacterMap map;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
  /// Length of the user-defined symbol that `text` begins with, 0 if it begins with none.
  std::function<std::size_t(std::string_view text)> user_defined;

  std::string operator()(std::string_view text) const;

 private:
  std::pair<std::size_t, std::string_view> next(std::string_view text) const;
};

using NormalizerStep =
    std::variant<normalizers::Bert, normalizers::Unicode, normalizers::Lowercase,
                 normalizers::StripAccents, normalizers::Strip, normalizers::Replace,
                 normalizers::Prepend, normalizers::Precompiled, normalizers::ByteLevel,
                 normalizers::Nmt, SentencePieceNormalizer>;

/// Normalisation steps, applied in order.
struct Normalizer {
  std::vector<NormalizerStep> steps;

  bool empty() const { return steps.empty(); }
  std::string operator()(std::string_view text) const;
};

}  // namespace graft::inline v0_1::text

#if !defined(GRAFT_FILES_COMPILED)
#include "graft/text/impl/normalizer_impl.hpp"
#endif
