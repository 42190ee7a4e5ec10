#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graft/base/error.hpp"
#include "graft/base/types.hpp"
#include "graft/text/lookup.hpp"

namespace graft::inline v0_1::text {

inline constexpr std::int32_t kNoToken = -1;

/// A token in a piece of text: its id and the byte of the piece at which it begins.
struct TokenPart {
  std::int32_t id;
  std::uint32_t begin;
};

/// Tokens by id and ids by token. Ids may have gaps.
class Vocabulary {
 public:
  /// Errors: ValueError when the id is out of range or taken, or the token has another id.
  void add(std::string_view token, std::int32_t id) {
    if (contains(id) && this->token(id) != token) {
      throw ValueError(
          concat("id ", id, " is claimed by '", this->token(id), "' and '", token, "'"));
    }
    if (const std::int32_t known = find(token); known != kNoToken && known != id)
      throw ValueError(concat("token '", token, "' has the ids ", known, " and ", id));
    set(token, id);
  }
  /// The same, but where a token comes twice, searching finds the later id.
  /// Errors: ValueError when the id is out of range.
  void set(std::string_view token, std::int32_t id) {
    // Gaps exist in real files; a lone huge id would only make the table huge.
    if (id < 0 || id >= kMaxSize || static_cast<std::size_t>(id) > 4 * ids_.size() + 65536)
      throw ValueError(concat("token id ", id, " is out of range for ", ids_.size(), " tokens"));
    if (static_cast<std::size_t>(id) >= tokens_.size())
      tokens_.resize(static_cast<std::size_t>(id) + 1);
    ids_.insert_or_assign(std::string(token), id);
    tokens_[static_cast<std::size_t>(id)] = token;
  }

  /// One more than the largest id.
  Index size() const { return static_cast<Index>(tokens_.size()); }
  std::int32_t find(std::string_view token) const {
    const auto found = ids_.find(token);
    return found == ids_.end() ? kNoToken : found->second;
  }
  bool contains(std::int32_t id) const {
    return id >= 0 && static_cast<std::size_t>(id) < tokens_.size() &&
           tokens_[static_cast<std::size_t>(id)].has_value();
  }
  /// Errors: ValueError when no token has this id.
  const std::string& token(std::int32_t id) const {
    if (!contains(id)) {
      throw ValueError(concat("no token has the id ", id, "; ids go from 0 to ", size() - 1));
    }
    return *tokens_[static_cast<std::size_t>(id)];
  }

  /// Calls `visit(token, id)` in the order of ids.
  template <class Visit>
  void for_each(Visit&& visit) const {
    for (std::size_t i = 0; i < tokens_.size(); ++i) {
      if (tokens_[i]) visit(*tokens_[i], static_cast<std::int32_t>(i));
    }
  }

 private:
  static constexpr std::int32_t kMaxSize = 1 << 24;
  std::vector<std::optional<std::string>> tokens_;
  StringMap<std::int32_t> ids_;
};

/// The name of a byte in vocabularies with byte fallback: "<0x0A>".
inline std::string byte_token(unsigned char byte) {
  static constexpr std::string_view kHex = "0123456789ABCDEF";
  return {'<', '0', 'x', kHex[byte >> 4], kHex[byte & 15U], '>'};
}

/// The byte that such a token names, -1 if it names none.
inline int byte_of_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  int value = 0;
  for (const char c : token.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                             : -1;
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

/// Ids of the 256 byte tokens, as far as the vocabulary has them.
class ByteTokens {
 public:
  ByteTokens() { ids_.fill(kNoToken); }
  explicit ByteTokens(const Vocabulary& vocabulary) {
    for (std::size_t b = 0; b < 256; ++b)
      ids_[b] = vocabulary.find(byte_token(static_cast<unsigned char>(b)));
  }
  std::int32_t operator[](char byte) const { return ids_[static_cast<unsigned char>(byte)]; }

  /// Appends one token a byte; false, and nothing appended, if one is missing.
  bool append(std::string_view bytes, std::uint32_t begin, std::vector<TokenPart>& parts) const {
    for (const char byte : bytes) {
      if ((*this)[byte] == kNoToken) return false;
    }
    for (const char byte : bytes) parts.push_back({(*this)[byte], begin++});
    return true;
  }

 private:
  std::array<std::int32_t, 256> ids_;
};

}  // namespace graft::inline v0_1::text
