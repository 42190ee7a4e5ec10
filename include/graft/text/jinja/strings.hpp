#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graft/text/jinja/error.hpp"
#include "graft/text/jinja/value.hpp"
#include "graft/text/normalizer.hpp"
#include "graft/text/unicode.hpp"

namespace graft::inline v0_1::text::jinja::detail {

inline std::string strip(std::string_view text, const std::string* set, bool left, bool right) {
  std::vector<std::pair<std::size_t, std::size_t>> points;  // offset and length
  std::vector<bool> drop;
  for_each_code_point(text, [&](char32_t c, std::size_t offset, std::size_t length) {
    points.emplace_back(offset, length);
    // Python's str.strip also takes the separators U+001C to U+001F.
    const bool space = is_white_space(c) || (c >= 0x1C && c <= 0x1F);
    drop.push_back(set == nullptr ? space
                                  : set->find(text.substr(offset, length)) != std::string::npos);
  });
  std::size_t begin = 0, end = points.size();
  while (left && begin < end && drop[begin]) ++begin;
  while (right && end > begin && drop[end - 1]) --end;
  if (begin == end) return {};
  const std::size_t from = points[begin].first;
  return std::string(text.substr(from, points[end - 1].first + points[end - 1].second - from));
}

inline std::vector<std::string> characters(std::string_view text) {
  std::vector<std::string> list;
  for_each_code_point(text, [&](char32_t, std::size_t offset, std::size_t length) {
    list.emplace_back(text.substr(offset, length));
  });
  return list;
}

/// The places that a Python slice takes of a sequence.
inline std::vector<std::size_t> slice_places(std::size_t size, std::optional<std::int64_t> start,
                                             std::optional<std::int64_t> stop, std::int64_t step) {
  const auto count = static_cast<std::int64_t>(size);
  const auto clamp = [&](std::int64_t place) {
    if (place < 0) place = place < -count ? -1 : place + count;
    if (step < 0) return std::clamp<std::int64_t>(place, -1, count - 1);
    return std::clamp<std::int64_t>(place, 0, count);
  };
  std::int64_t at = start ? clamp(*start) : step > 0 ? 0 : count - 1;
  const std::int64_t end = stop ? clamp(*stop) : step > 0 ? count : -1;
  std::vector<std::size_t> places;
  while (step > 0 ? at < end : at > end) {
    places.push_back(static_cast<std::size_t>(at));
    if (step > count || step < -count) break;
    at += step;
  }
  return places;
}

inline std::string map_case(std::string_view text, bool upper) {
  std::string out;
  for_each_code_point(text, [&](char32_t c, std::size_t, std::size_t) {
    const auto point = static_cast<UChar32>(c);
    append_utf8(out, static_cast<char32_t>(upper ? u_toupper(point) : u_tolower(point)));
  });
  return out;
}

/// Upper case at the beginning (of each word, with `title`), lower case after it.
inline std::string capitalize(std::string_view text, bool title) {
  std::string out;
  bool start = true;
  for_each_code_point(text, [&](char32_t c, std::size_t, std::size_t) {
    const auto point = static_cast<UChar32>(c);
    append_utf8(out, static_cast<char32_t>(start ? u_totitle(point) : u_tolower(point)));
    start = title && u_isalpha(point) == 0;
  });
  return out;
}

inline Value split(std::string_view text, const std::string* separator, std::int64_t most,
                   int line) {
  List parts;
  if (most < 0) most = std::numeric_limits<std::int64_t>::max();
  if (separator != nullptr) {
    if (separator->empty()) fail(line, "split: empty separator");
    std::size_t at = text.find(*separator);
    for (; at != text.npos && static_cast<std::int64_t>(parts.size()) < most;
         at = text.find(*separator)) {
      parts.emplace_back(text.substr(0, at));
      text.remove_prefix(at + separator->size());
    }
    parts.emplace_back(text);
    return parts;
  }
  std::string rest = strip(text, nullptr, true, false);
  while (!rest.empty()) {
    std::size_t end = rest.size();
    if (static_cast<std::int64_t>(parts.size()) < most) {
      for_each_code_point(rest, [&](char32_t c, std::size_t offset, std::size_t) {
        if (is_white_space(c)) end = std::min(end, offset);
      });
    }
    parts.emplace_back(std::string_view(rest).substr(0, end));
    rest = strip(std::string_view(rest).substr(end), nullptr, true, false);
  }
  return parts;
}

}  // namespace graft::inline v0_1::text::jinja::detail
