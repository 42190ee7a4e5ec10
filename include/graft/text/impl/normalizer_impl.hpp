#pragma once

#include <algorithm>

#include "graft/text/normalizer.hpp"

namespace graft::inline v0_1::text {

GRAFT_IO std::string replace_all(std::string_view text, std::string_view from,
                                 std::string_view to) {
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

GRAFT_IO std::string normalizers::Bert::operator()(std::string_view text) const {
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

GRAFT_IO std::string normalizers::Unicode::operator()(std::string_view text) const {
  return normalize_unicode(text, form);
}

GRAFT_IO std::string normalizers::Lowercase::operator()(std::string_view text) const {
  return lowercase(text);
}

GRAFT_IO std::string normalizers::StripAccents::operator()(std::string_view text) const {
  return remove_code_points(text, [](char32_t c) { return in_category_as_of(9, c, U_GC_M_MASK); });
}

GRAFT_IO std::string normalizers::Strip::operator()(std::string_view text) const {
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

GRAFT_IO std::string normalizers::Replace::operator()(std::string_view text) const {
  std::string out;
  std::size_t previous = 0;
  for_each_match(pattern, text, [&](std::size_t begin, std::size_t end) {
    out.append(text.substr(previous, begin - previous)).append(content);
    previous = end;
  });
  return out.append(text.substr(previous));
}

GRAFT_IO std::string normalizers::Prepend::operator()(std::string_view text) const {
  return text.empty() ? std::string() : content + std::string(text);
}

GRAFT_IO std::string normalizers::Precompiled::operator()(std::string_view text) const {
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

GRAFT_IO std::string normalizers::ByteLevel::operator()(std::string_view text) const {
  return ByteAlphabet::get().encode(text);
}

GRAFT_IO std::string normalizers::Nmt::operator()(std::string_view text) const {
  std::string out;
  for_each_code_point(text, [&](char32_t c, std::size_t offset, std::size_t length) {
    const bool control = (c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F ||
                         c == 0x8F || c == 0x9F;
    if (control) return;
    const bool blank = c == 9 || c == 0xA || c == 0xC || c == 0xD || c == 0x1680 ||
                       (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                       c == 0xFEFF || c == 0xFFFD;
    if (blank) {
      out.push_back(' ');
    } else {
      out.append(text.substr(offset, length));
    }
  });
  return out;
}

GRAFT_IO bool normalizers::Bert::is_ideograph(char32_t c) {
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) ||
         (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
         (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
         (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

GRAFT_IO std::string SentencePieceNormalizer::operator()(std::string_view text) const {
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

GRAFT_IO std::pair<std::size_t, std::string_view> SentencePieceNormalizer::next(
    std::string_view text) const {
  if (user_defined) {
    if (const std::size_t length = user_defined(text); length > 0)
      return {length, text.substr(0, length)};
  }
  if (const auto found = map.longest_prefix(text); found.first > 0) return found;
  const std::size_t length = utf8_length(text[0]);
  return {length, text.substr(0, length)};
}

GRAFT_IO std::string Normalizer::operator()(std::string_view text) const {
  std::string out(text);
  for (const NormalizerStep& step : steps) {
    out = std::visit([&](const auto& normalize) { return normalize(out); }, step);
  }
  return out;
}

}  // namespace graft::inline v0_1::text
