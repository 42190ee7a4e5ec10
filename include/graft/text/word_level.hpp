#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "graft/base/error.hpp"
#include "graft/text/vocabulary.hpp"

namespace graft::inline v0_1::text {

/// WordLevel: each piece is a token of the vocabulary, or one unknown token.
class WordLevelModel {
 public:
  /// Errors: ValueError when the vocabulary lacks the unknown token.
  WordLevelModel(const Vocabulary& vocabulary, const std::string& unk_token)
      : unk_(vocabulary.find(unk_token)) {
    if (unk_ == kNoToken)
      throw ValueError(
          concat("WordLevel: the vocabulary lacks the unknown token '", unk_token, "'"));
    vocabulary.for_each([&](const std::string& token, std::int32_t id) { ids_[token] = id; });
  }

  void tokenize(std::string_view word, std::vector<TokenPart>& parts) const {
    const auto it = ids_.find(std::string(word));
    parts.push_back({it == ids_.end() ? unk_ : it->second, 0});
  }

 private:
  std::unordered_map<std::string, std::int32_t> ids_;
  std::int32_t unk_;
};

}  // namespace graft::inline v0_1::text
