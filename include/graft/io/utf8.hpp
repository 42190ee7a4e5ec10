#pragma once

#include <cstddef>
#include <string_view>

namespace graft::inline v0_1::io {

/// `text` without the byte order mark that some programs put at its start.
inline std::string_view without_byte_order_mark(std::string_view text) {
  return text.starts_with("\xEF\xBB\xBF") ? text.substr(3) : text;
}

/// True if the text is well-formed UTF-8: no overlong forms, surrogates, or values above U+10FFFF.
inline bool is_utf8(std::string_view text) {
  const auto byte = [&](std::size_t i) -> unsigned { return static_cast<unsigned char>(text[i]); };
  for (std::size_t i = 0; i < text.size();) {
    const unsigned lead = byte(i);
    std::size_t length = 1;
    unsigned lowest = 0x80, highest = 0xBF;  // of the second byte
    if (lead >= 0xF5 || (lead >= 0x80 && lead < 0xC2)) return false;
    if (lead >= 0xC2) length = 2;
    if (lead >= 0xE0) length = 3;
    if (lead >= 0xF0) length = 4;
    if (lead == 0xE0) lowest = 0xA0;
    if (lead == 0xED) highest = 0x9F;
    if (lead == 0xF0) lowest = 0x90;
    if (lead == 0xF4) highest = 0x8F;
    if (length > text.size() - i) return false;
    if (length > 1 && (byte(i + 1) < lowest || byte(i + 1) > highest)) return false;
    for (std::size_t k = 2; k < length; ++k) {
      if ((byte(i + k) & 0xC0) != 0x80) return false;
    }
    i += length;
  }
  return true;
}

}  // namespace graft::inline v0_1::io
