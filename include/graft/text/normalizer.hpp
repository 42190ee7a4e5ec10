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
#include "graft/text/regex.hpp"
#include "graft/text/unicode.hpp"

namespace graft::inline v0_1::text {

/// Every occurrence of `from` replaced by `to`.
inline std::string replace_all(std::string_view text, std::string_view from, std::string_view to) {
  std::string replaced;
  replaced.reserve(text.size());
  std::size_t begin = 0;
  for (std::size_t i = from.empty() ? text.npos : text.find(from); i != text.npos;
       i = text.find(from, begin)) {
    replaced.append(text.substr(begin, i - begin)).append(to);
    begin = i + from.size();
  }
  return replaced.append(text.substr(begin));
}

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

  static bool is_ideograph(char32_t c) {
    return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) ||
           (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
           (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
           (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
  }
  std::string operator()(std::string_view text) const {
    std::string out;
    out.reserve(text.size());
    for_each_code_point(text, [&](char32_t c, std::size_t offset, std::size_t length) {
      if (clean_text) {
        const bool layout = c == '\t' || c == '\n' || c == '\r';
        constexpr std::uint32_t kOther = U_GC_CC_MASK | U_GC_CF_MASK | U_GC_CO_MASK | U_GC_CS_MASK;
        if (c == 0 || c == kReplacementCharacter || (!layout && in_category_as_of(8, c, kOther)))
          return;
        if (layout || is_white_space(c)) {
          out.push_back(' ');
          return;
        }
      }
      const bool alone = handle_chinese_chars && is_ideograph(c);
      if (alone) out.push_back(' ');
      out.append(text.substr(offset, length));
      if (alone) out.push_back(' ');
    });
    if (strip_accents.value_or(lowercase)) {
      out = remove_code_points(normalize_unicode(out, NormalizationForm::nfd),
                               [](char32_t c) { return in_category_as_of(8, c, U_GC_MN_MASK); });
    }
    return lowercase ? text::lowercase(out) : out;
  }
};

struct Unicode {
  NormalizationForm form = NormalizationForm::nfc;
  std::string operator()(std::string_view text) const { return normalize_unicode(text, form); }
};

struct Lowercase {
  std::string operator()(std::string_view text) const { return lowercase(text); }
};

/// Drops combining marks (general category M); precomposed letters keep theirs.
struct StripAccents {
  std::string operator()(std::string_view text) const {
    return remove_code_points(text,
                              [](char32_t c) { return in_category_as_of(9, c, U_GC_M_MASK); });
  }
};

/// Drops white space at the ends.
struct Strip {
  bool left = true;
  bool right = true;
  std::string operator()(std::string_view text) const {
    std::size_t begin = text.size(), end = 0;
    for_each_code_point(text, [&](char32_t c, std::size_t offset, std::size_t length) {
      if (is_white_space(c)) return;
      begin = std::min(begin, offset);
      end = offset + length;
    });
    if (end == 0) return left || right ? std::string() : std::string(text);
    if (!left) begin = 0;
    if (!right) end = text.size();
    return std::string(text.substr(begin, end - begin));
  }
};

struct Replace {
  Pattern pattern;
  std::string content;
  std::string operator()(std::string_view text) const {
    std::string out;
    std::size_t previous = 0;
    for_each_match(pattern, text, [&](std::size_t begin, std::size_t end) {
      out.append(text.substr(previous, begin - previous)).append(content);
      previous = end;
    });
    return out.append(text.substr(previous));
  }
};

/// Puts a text before one that is not empty.
struct Prepend {
  std::string content;
  std::string operator()(std::string_view text) const {
    return text.empty() ? std::string() : content + std::string(text);
  }
};

/// The character map applied to each grapheme cluster of fewer than 6 bytes, else to each of its
/// code points, taking the shortest key that fits, as the `tokenizers` library does. SentencePiece
/// itself takes the longest key at each position: see `SentencePieceNormalizer`.
struct Precompiled {
  CharacterMap map;
  std::string operator()(std::string_view text) const {
    std::string out;
    out.reserve(text.size());
    for_each_grapheme(text, [&](std::string_view cluster) {
      if (cluster.size() < 6) {
        if (const auto replacement = map.shortest_prefix(cluster)) {
          out.append(*replacement);
          return;
        }
      }
      for_each_code_point(cluster, [&](char32_t, std::size_t offset, std::size_t length) {
        const std::string_view single = cluster.substr(offset, length);
        out.append(map.shortest_prefix(single).value_or(single));
      });
    });
    return out;
  }
};

/// Replaces each byte by its code point of the byte-level alphabet.
struct ByteLevel {
  std::string operator()(std::string_view text) const { return ByteAlphabet::get().encode(text); }
};

/// The clean-up for machine translation texts: drops control characters, makes odd blanks plain.
struct Nmt {
  std::string operator()(std::string_view text) const {
    std::string out;
    for_each_code_point(text, [&](char32_t c, std::size_t offset, std::size_t length) {
      const bool control = (c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F ||
                           c == 0x8F || c == 0x9F;
      if (control) return;
      const bool blank = c == 9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 ||
                         (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 ||
                         c == 0x2581 || c == 0xFEFF || c == 0xFFFD;
      if (blank) {
        out.push_back(' ');
      } else {
        out.append(text.substr(offset, length));
      }
    });
    return out;
  }
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

  std::string operator()(std::string_view text) const {
    static constexpr std::string_view kMark = "\xE2\x96\x81";
    const std::string_view blank = escape_whitespaces ? kMark : std::string_view(" ");
    std::string out;
    out.reserve(text.size() + 3);
    bool started = !remove_extra_whitespaces;  // otherwise the first character that stays starts
    if (started && add_dummy_prefix && !text.empty()) out.append(blank);
    bool after_blank = remove_extra_whitespaces;
    while (!text.empty()) {
      auto [length, piece] = next(text);
      text.remove_prefix(length);
      while (after_blank && piece.starts_with(' ')) piece.remove_prefix(1);
      if (piece.empty()) continue;
      if (!started && add_dummy_prefix) out.append(blank);
      started = true;
      for (const char byte : piece) {
        if (byte == ' ') {
          out.append(blank);
        } else {
          out.push_back(byte);
        }
      }
      after_blank = remove_extra_whitespaces && piece.ends_with(' ');
    }
    if (remove_extra_whitespaces) {
      while (out.ends_with(blank)) out.erase(out.size() - blank.size());
    }
    return out;
  }

 private:
  std::pair<std::size_t, std::string_view> next(std::string_view text) const {
    if (user_defined) {
      if (const std::size_t length = user_defined(text); length > 0)
        return {length, text.substr(0, length)};
    }
    if (const auto found = map.longest_prefix(text); found.first > 0) return found;
    const std::size_t length = utf8_length(text[0]);
    return {length, text.substr(0, length)};
  }
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
  std::string operator()(std::string_view text) const {
    std::string out(text);
    for (const NormalizerStep& step : steps) {
      out = std::visit([&](const auto& normalize) { return normalize(out); }, step);
    }
    return out;
  }
};

}  // namespace graft::inline v0_1::text
