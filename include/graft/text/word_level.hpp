#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graft/base/error.hpp"
#include "graft/text/vocabulary.hpp"

namespace graft::inline v0_1::text {

/// WordLevel: each piece is a token of the vocabulary, or one unknown token.
class WordLevelModel {
 public:
  /// The tokens are copied: what is added to `vocabulary` later is no token of this model.
  WordLevelModel(const Vocabulary& vocabulary, std::string unk_token)
      : unk_token_(std::move(unk_token)), unk_(vocabulary.find(unk_token_)) {
    vocabulary.for_each([&](const std::string& token, std::int32_t id) { ids_[token] = id; });
  }

  /// Errors: ValueError when neither `word` nor the unknown token is in the vocabulary.
  void tokenize(std::string_view word, std::vector<TokenPart>& parts) const {
    const auto it = ids_.find(word);
    const std::int32_t id = it == ids_.end() ? unk_ : it->second;
    if (id == kNoToken)
      throw ValueError(concat("WordLevel: the vocabulary lacks '", word,
                              "' and the unknown token '", unk_token_, "'"));
    parts.push_back({id, 0});
  }

 private:
  StringMap<std::int32_t> ids_;
  std::string unk_token_;
  std::int32_t unk_;
};

}  // namespace graft::inline v0_1::text
