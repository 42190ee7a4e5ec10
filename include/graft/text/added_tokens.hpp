#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graft/text/lookup.hpp"
#include "graft/text/unicode.hpp"
#include "graft/text/vocabulary.hpp"

namespace graft::inline v0_1::text {

/// A token that is looked for in the text before the model sees it.
struct AddedToken {
  std::string content;
  std::int32_t id = kNoToken;
  bool special = false;      ///< a control token; decoding can leave it out
  bool single_word = false;  ///< not inside a word
  bool lstrip = false;       ///< takes the white space on its left along
  bool rstrip = false;       ///< … on its right
  bool normalized = false;   ///< looked for in the normalised text, else in the raw one
};

/// Finds added tokens: the leftmost first, of those the longest. As in the tokenizers library, one
/// that begins with blanks which the token before took along is found all the same, unless nothing
/// is left of it.
class AddedTokenMatcher {
 public:
  AddedTokenMatcher() = default;
  explicit AddedTokenMatcher(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
    for (std::size_t i = 0; i < tokens_.size(); ++i)
      trie_.insert(tokens_[i].content, static_cast<std::int32_t>(i));
  }

  /// Calls `on_text(begin, end)` and `on_token(id, begin, end)` along the text. Without
  /// `parse_special`, special tokens are text like any other.
  template <class OnText, class OnToken>
  void split(std::string_view text, bool parse_special, OnText&& on_text,
             OnToken&& on_token) const {
    std::size_t done = 0;
    for (std::size_t i = 0; !trie_.empty() && i < text.size();) {
      const auto [length, index] = trie_.longest_prefix(text, i);
      if (length == 0) {
        ++i;
        continue;
      }
      const AddedToken& token = tokens_[static_cast<std::size_t>(index)];
      std::size_t begin = i, end = i + length;
      i = end;
      if (token.special && !parse_special) continue;
      if (token.single_word &&
          (ends_with_word(text.substr(0, begin)) || starts_with_word(text.substr(end)))) {
        continue;
      }
      if (token.lstrip) begin = std::max(done, trimmed_end(text.substr(0, begin)));
      if (token.rstrip) end += leading_space(text.substr(end));
      if (begin > done) on_text(done, begin);
      end = std::max(begin, end);
      if (begin < end) on_token(token.id, begin, end);
      done = end;
    }
    if (done < text.size()) on_text(done, text.size());
  }

 private:
  static char32_t last_code_point(std::string_view text, std::size_t& begin) {
    begin = text.size() - 1;
    while (begin > 0 && is_continuation_byte(text[begin])) --begin;
    return decode_utf8(text, begin).value;
  }
  static bool ends_with_word(std::string_view text) {
    std::size_t begin = 0;
    return !text.empty() && is_word_character(last_code_point(text, begin));
  }
  static bool starts_with_word(std::string_view text) {
    return !text.empty() && is_word_character(decode_utf8(text, 0).value);
  }
  static std::size_t trimmed_end(std::string_view text) {
    std::size_t end = text.size(), begin = 0;
    while (end > 0 && is_white_space(last_code_point(text.substr(0, end), begin))) end = begin;
    return end;
  }
  static std::size_t leading_space(std::string_view text) {
    std::size_t i = 0;
    while (i < text.size()) {
      const DecodedCodePoint point = decode_utf8(text, i);
      if (!is_white_space(point.value)) break;
      i += point.length;
    }
    return i;
  }

  std::vector<AddedToken> tokens_;
  ByteTrie trie_;
};

}  // namespace graft::inline v0_1::text
