#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graft/base/error.hpp"
#include "graft/text/lookup.hpp"
#include "graft/text/unicode.hpp"
#include "graft/text/vocabulary.hpp"

namespace graft::inline v0_1::text {

struct WordPieceOptions {
  std::string unk_token = "[UNK]";
  std::string continuing_subword_prefix = "##";
  std::size_t max_input_chars_per_word = 100;
};

/// WordPiece: the longest token that the word begins with, then the longest that its rest begins
/// with, …; a word that cannot be spelled this way, or is too long, is one unknown token.
/// Source: Devlin et al. 2019, "BERT", the released `WordpieceTokenizer`.
class WordPieceModel {
 public:
  WordPieceModel(const Vocabulary& vocabulary, const WordPieceOptions& options)
      : max_characters_(options.max_input_chars_per_word),
        unk_token_(options.unk_token),
        unk_(vocabulary.find(options.unk_token)) {
    const std::string& prefix = options.continuing_subword_prefix;
    vocabulary.for_each([&](const std::string& token, std::int32_t id) {
      first_.insert(token, id);
      if (token.starts_with(prefix))
        next_.insert(std::string_view(token).substr(prefix.size()), id);
    });
  }

  /// Errors: ValueError when a word cannot be spelled and the vocabulary lacks the unknown token.
  void tokenize(std::string_view word, std::vector<TokenPart>& parts) const {
    const std::size_t before = parts.size();
    bool spelled = count_code_points(word) <= max_characters_;
    for (std::size_t begin = 0; spelled && begin < word.size();) {
      const auto [length, id] = (begin == 0 ? first_ : next_).longest_prefix(word, begin);
      spelled = length > 0;
      if (spelled) parts.push_back({id, static_cast<std::uint32_t>(begin)});
      begin += length;
    }
    if (spelled) return;
    parts.resize(before);
    if (unk_ == kNoToken)
      throw ValueError(concat("WordPiece: the vocabulary lacks '", word,
                              "' and the unknown token '", unk_token_, "'"));
    parts.push_back({unk_, 0});
  }

 private:
  std::size_t max_characters_;
  std::string unk_token_;
  std::int32_t unk_;
  ByteTrie first_;
  ByteTrie next_;
};

}  // namespace graft::inline v0_1::text
