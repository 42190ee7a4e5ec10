#pragma once

#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/stringpiece.h>
#include <unicode/ubrk.h>
#include <unicode/uchar.h>
#include <unicode/uscript.h>
#include <unicode/utext.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "graft/base/error.hpp"

namespace graft::inline v0_1::text {

inline constexpr char32_t kReplacementCharacter = 0xFFFD;
inline constexpr std::string_view kReplacementText = "\xEF\xBF\xBD";

inline bool is_continuation_byte(char byte) {
  return (static_cast<unsigned char>(byte) & 0xC0U) == 0x80U;
}

/// One step of UTF-8 decoding.
struct DecodedCodePoint {
  char32_t value;      ///< U+FFFD when the bytes are no valid sequence
  std::size_t length;  ///< bytes used, at least 1
  bool valid;
  bool truncated;  ///< the text ends inside a sequence that was valid so far
};

/// Decodes the code point that starts at `position` (< text.size()). An invalid sequence yields
/// U+FFFD for its longest prefix that could have begun a valid one, as the Unicode standard
/// recommends (section 3.9, "maximal subparts"). Surrogates and overlong forms are invalid.
inline DecodedCodePoint decode_utf8(std::string_view text, std::size_t position) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(position);
  if (lead < 0x80) return {lead, 1, true, false};
  std::size_t count = 0;
  unsigned lowest = 0x80, highest = 0xBF;  // allowed range of the second byte
  char32_t value = 0;
  if (lead >= 0xC2 && lead <= 0xDF) {
    count = 1;
    value = lead & 0x1FU;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    count = 2;
    value = lead & 0x0FU;
    if (lead == 0xE0) lowest = 0xA0;
    if (lead == 0xED) highest = 0x9F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    count = 3;
    value = lead & 0x07U;
    if (lead == 0xF0) lowest = 0x90;
    if (lead == 0xF4) highest = 0x8F;
  } else {
    return {kReplacementCharacter, 1, false, false};
  }
  for (std::size_t i = 1; i <= count; ++i) {
    if (position + i >= text.size()) return {kReplacementCharacter, i, false, true};
    const unsigned next = byte(position + i);
    if (next < lowest || next > highest) return {kReplacementCharacter, i, false, false};
    lowest = 0x80;
    highest = 0xBF;
    value = (value << 6) | (next & 0x3FU);
  }
  return {value, count + 1, true, false};
}

/// Bytes of the code point that starts with `lead`, in text known to be valid.
inline std::size_t utf8_length(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  return byte < 0x80 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

inline void append_utf8(std::string& text, char32_t value) {
  const auto push = [&](char32_t byte) { text.push_back(static_cast<char>(byte)); };
  if (value < 0x80) {
    push(value);
  } else if (value < 0x800) {
    push(0xC0 | (value >> 6));
    push(0x80 | (value & 0x3F));
  } else if (value < 0x10000) {
    push(0xE0 | (value >> 12));
    push(0x80 | ((value >> 6) & 0x3F));
    push(0x80 | (value & 0x3F));
  } else {
    push(0xF0 | (value >> 18));
    push(0x80 | ((value >> 12) & 0x3F));
    push(0x80 | ((value >> 6) & 0x3F));
    push(0x80 | (value & 0x3F));
  }
}

/// Calls `visit(code point, offset, length)` along the text; invalid bytes come as U+FFFD.
template <class Visit>
void for_each_code_point(std::string_view text, Visit&& visit) {
  for (std::size_t i = 0; i < text.size();) {
    const DecodedCodePoint point = decode_utf8(text, i);
    visit(point.value, i, point.length);
    i += point.length;
  }
}

inline bool is_valid_utf8(std::string_view text) {
  for (std::size_t i = 0; i < text.size();) {
    if (static_cast<unsigned char>(text[i]) < 0x80) {
      ++i;
      continue;
    }
    const DecodedCodePoint point = decode_utf8(text, i);
    if (!point.valid) return false;
    i += point.length;
  }
  return true;
}

/// The text with every invalid sequence replaced by U+FFFD.
inline std::string replace_invalid_utf8(std::string_view text) {
  std::string clean;
  clean.reserve(text.size());
  for_each_code_point(text, [&](char32_t value, std::size_t offset, std::size_t length) {
    if (value == kReplacementCharacter) {
      clean.append(kReplacementText);
    } else {
      clean.append(text.substr(offset, length));
    }
  });
  return clean;
}

inline std::size_t count_code_points(std::string_view text) {
  std::size_t count = 0;
  for (const char byte : text) count += is_continuation_byte(byte) ? 0 : 1;
  return count;
}

inline bool is_ascii(std::string_view text) {
  for (const char byte : text) {
    if (static_cast<unsigned char>(byte) >= 0x80) return false;
  }
  return true;
}

/// Unicode property White_Space.
inline bool is_white_space(char32_t value) {
  return u_isUWhiteSpace(static_cast<UChar32>(value)) != 0;
}
inline bool in_category(char32_t value, std::uint32_t mask) {
  return (U_MASK(u_charType(static_cast<UChar32>(value))) & mask) != 0;
}
/// Whether a version of Unicode knew the character. The `tokenizers` library, by which models were
/// trained, has older tables, where later ones count as unassigned.
inline bool known_as_of(int version, char32_t value) {
  UVersionInfo age;
  u_charAge(static_cast<UChar32>(value), age);
  return age[0] <= version;
}
inline bool in_category_as_of(int version, char32_t value, std::uint32_t mask) {
  return in_category(value, mask) && (value < 0x80 || known_as_of(version, value));
}
/// General category N: decimal digits, letter numbers, other numbers.
inline bool is_number(char32_t value) {
  return in_category(value, U_GC_ND_MASK | U_GC_NL_MASK | U_GC_NO_MASK);
}
/// General category P, and the ASCII signs such as $ or ^ that Unicode calls symbols.
inline bool is_punctuation(char32_t value) {
  if (value < 0x80) {
    return (value >= '!' && value <= '/') || (value >= ':' && value <= '@') ||
           (value >= '[' && value <= '`') || (value >= '{' && value <= '~');
  }
  return in_category_as_of(8, value, U_GC_P_MASK);
}
/// Word characters: Alphabetic, M, Nd, Pc and the two joiners (Unicode technical standard 18).
inline bool is_word_character(char32_t value) {
  return u_hasBinaryProperty(static_cast<UChar32>(value), UCHAR_ALPHABETIC) != 0 ||
         in_category(value, U_GC_M_MASK | U_GC_ND_MASK | U_GC_PC_MASK) || value == 0x200C ||
         value == 0x200D;
}

/// The script of a character as the `tokenizers` library cuts by it: kana go with Han; blanks and
/// characters without a script have none (-1).
inline int script_of(char32_t value) {
  if (value == ' ' || !known_as_of(9, value)) return -1;
  UErrorCode error = U_ZERO_ERROR;
  const auto script = uscript_getScript(static_cast<UChar32>(value), &error);
  if (U_FAILURE(error) != 0 || script == USCRIPT_UNKNOWN) return -1;
  if (value == 0x30FC || script == USCRIPT_HIRAGANA || script == USCRIPT_KATAKANA)
    return USCRIPT_HAN;
  return script;
}

enum class NormalizationForm { nfc, nfd, nfkc, nfkd };

/// Unicode normalisation of valid UTF-8.
inline std::string normalize_unicode(std::string_view text, NormalizationForm form) {
  if (is_ascii(text)) return std::string(text);
  if (text.size() > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max() / 4))
    throw ValueError("normalize_unicode: the text is too long for one call");
  UErrorCode status = U_ZERO_ERROR;
  const icu::Normalizer2* normalizer = nullptr;
  switch (form) {
    case NormalizationForm::nfc:
      normalizer = icu::Normalizer2::getNFCInstance(status);
      break;
    case NormalizationForm::nfd:
      normalizer = icu::Normalizer2::getNFDInstance(status);
      break;
    case NormalizationForm::nfkc:
      normalizer = icu::Normalizer2::getNFKCInstance(status);
      break;
    case NormalizationForm::nfkd:
      normalizer = icu::Normalizer2::getNFKDInstance(status);
      break;
  }
  std::string normalized;
  if (U_SUCCESS(status)) {
    icu::StringByteSink<std::string> sink(&normalized);
    normalizer->normalizeUTF8(0,
                              icu::StringPiece(text.data(), static_cast<std::int32_t>(text.size())),
                              sink, nullptr, status);
  }
  if (U_FAILURE(status)) {
    throw ValueError(concat("normalize_unicode: ", u_errorName(status)));
  }
  return normalized;
}

/// Lower case of each code point by itself: no language, no context (a final sigma stays σ).
inline std::string lowercase(std::string_view text) {
  std::string lower;
  lower.reserve(text.size());
  for_each_code_point(text, [&](char32_t value, std::size_t, std::size_t) {
    if (value < 0x80) {
      lower.push_back(static_cast<char>(value >= 'A' && value <= 'Z' ? value + 32 : value));
    } else if (value == 0x130) {
      lower.append("i\xCC\x87");  // İ: the one code point whose lower case is two of them
    } else {
      append_utf8(lower, static_cast<char32_t>(u_tolower(static_cast<UChar32>(value))));
    }
  });
  return lower;
}

/// The text without the code points that `drops` accepts.
template <class Drops>
std::string remove_code_points(std::string_view text, Drops&& drops) {
  std::string kept;
  kept.reserve(text.size());
  for_each_code_point(text, [&](char32_t value, std::size_t offset, std::size_t length) {
    if (!drops(value)) kept.append(text.substr(offset, length));
  });
  return kept;
}

/// Calls `visit(piece)` for each extended grapheme cluster of valid UTF-8.
template <class Visit>
void for_each_grapheme(std::string_view text, Visit&& visit) {
  UErrorCode status = U_ZERO_ERROR;
  UText* source =
      utext_openUTF8(nullptr, text.data(), static_cast<std::int64_t>(text.size()), &status);
  UBreakIterator* breaks = ubrk_open(UBRK_CHARACTER, "", nullptr, 0, &status);
  if (U_SUCCESS(status)) ubrk_setUText(breaks, source, &status);
  if (U_FAILURE(status)) {
    ubrk_close(breaks);
    utext_close(source);
    throw ValueError(concat("for_each_grapheme: ", u_errorName(status)));
  }
  std::int32_t begin = ubrk_first(breaks);
  for (std::int32_t end = ubrk_next(breaks); end != UBRK_DONE; end = ubrk_next(breaks)) {
    visit(text.substr(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin)));
    begin = end;
  }
  ubrk_close(breaks);
  utext_close(source);
}

/// The reversible map between bytes and printable code points of byte-level vocabularies: printable
/// Latin-1 bytes stand for themselves, the 68 others for U+0100 … U+0143 in order.
/// Source: Radford et al. 2019, "Language Models are Unsupervised Multitask Learners", section 2.2.
class ByteAlphabet {
 public:
  static const ByteAlphabet& get() {
    static const ByteAlphabet alphabet;
    return alphabet;
  }
  const std::string& text(unsigned char byte) const { return text_[byte]; }
  /// The byte behind a code point, -1 if it stands for none.
  int byte(char32_t value) const { return value < byte_.size() ? byte_[value] : -1; }
  std::string encode(std::string_view bytes) const {
    std::string encoded;
    encoded.reserve(bytes.size() * 2);
    for (const char byte : bytes) encoded.append(text(static_cast<unsigned char>(byte)));
    return encoded;
  }
  /// Appends the bytes behind `encoded`; false, and nothing appended, if a code point stands for
  /// none.
  bool decode(std::string_view encoded, std::string& bytes) const {
    const std::size_t before = bytes.size();
    bool known = true;
    for_each_code_point(encoded, [&](char32_t value, std::size_t, std::size_t) {
      const int byte = this->byte(value);
      known = known && byte >= 0;
      if (known) bytes.push_back(static_cast<char>(byte));
    });
    if (!known) bytes.resize(before);
    return known;
  }

 private:
  ByteAlphabet() {
    byte_.fill(-1);
    char32_t next = 0x100;
    for (unsigned b = 0; b < 256; ++b) {
      const bool printable =
          (b >= '!' && b <= '~') || (b >= 0xA1 && b <= 0xAC) || (b >= 0xAE && b <= 0xFF);
      const char32_t value = printable ? b : next++;
      append_utf8(text_[b], value);
      byte_[value] = static_cast<std::int16_t>(b);
    }
  }
  std::array<std::string, 256> text_;
  std::array<std::int16_t, 0x144> byte_;
};

}  // namespace graft::inline v0_1::text
