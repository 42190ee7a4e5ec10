#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <queue>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graft/base/error.hpp"
#include "graft/config.hpp"
#include "graft/text/lookup.hpp"
#include "graft/text/unicode.hpp"
#include "graft/text/vocabulary.hpp"

namespace graft::inline v0_1::text {

struct BpeOptions {
  /// None: what the vocabulary lacks is dropped. The vocabulary may lack this too, until it is
  /// needed.
  std::optional<std::string> unk_token;
  std::string continuing_subword_prefix;  ///< before every symbol of a word but the first
  std::string end_of_word_suffix;         ///< after the last symbol of a word
  bool fuse_unk = false;                  ///< a run of unknown characters is one unknown token
  bool byte_fallback = false;             ///< unknown characters become byte tokens, if they exist
  bool ignore_merges = false;             ///< a word that is a token is that token
  bool byte_level = false;  ///< pieces are bytes, the vocabulary spells them printable
};

/// Byte-pair encoding with a ranked list of merges: from single characters (or bytes) on, the pair
/// with the lowest rank is merged, the leftmost first, until none is left.
/// Source: Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units",
/// §3.2.
class BpeModel {
 public:
  /// Errors: ValueError when a merge names a token that the vocabulary lacks.
  BpeModel(const Vocabulary& vocabulary,
           const std::vector<std::pair<std::string, std::string>>& merges, BpeOptions options)
      : options_(std::move(options)), bytes_(vocabulary) {
    if (options_.unk_token) unk_ = vocabulary.find(*options_.unk_token);
    if (merges.size() > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max() / 2))
      throw ValueError(concat("BPE: ", merges.size(), " merges are too many"));
    const std::size_t prefix = options_.continuing_subword_prefix.size();
    merges_.reserve(merges.size());
    std::int32_t rank = 0;
    for (const auto& [left, right] : merges) {
      const std::int32_t left_id = known(vocabulary, left, rank);
      const std::int32_t right_id = known(vocabulary, right, rank);
      const std::string merged =
          left + (right.size() >= prefix ? right.substr(prefix) : std::string());
      merges_[pair_key(left_id, right_id)] = {rank, known(vocabulary, merged, rank)};
      ++rank;
    }
    vocabulary.for_each([&](const std::string& token, std::int32_t id) { ids_[token] = id; });
    if (options_.byte_level) {
      for (std::size_t b = 0; b < 256; ++b) {
        alphabet_[b] = vocabulary.find(ByteAlphabet::get().text(static_cast<unsigned char>(b)));
      }
    }
  }

  /// Errors: ValueError when something is unknown and the vocabulary lacks the unknown token.
  void tokenize(std::string_view piece, std::vector<TokenPart>& parts) const;

  const BpeOptions& options() const { return options_; }

 private:
  struct Merge {
    std::int32_t rank = 0;
    std::int32_t id = kNoToken;
  };
  static constexpr std::int32_t kNever = std::numeric_limits<std::int32_t>::max();

  static std::uint64_t pair_key(std::int32_t left, std::int32_t right) {
    return (static_cast<std::uint64_t>(static_cast<std::uint32_t>(left)) << 32) |
           static_cast<std::uint32_t>(right);
  }
  static std::int32_t known(const Vocabulary& vocabulary, const std::string& token,
                            std::int32_t rank) {
    const std::int32_t id = vocabulary.find(token);
    if (id == kNoToken) {
      throw ValueError(concat("BPE: merge ", rank, " needs the token '", token,
                              "', which the vocabulary lacks"));
    }
    return id;
  }
  std::int32_t find(std::string_view token) const;

  void push_unknown(std::uint32_t begin, bool& after_unknown,
                    std::vector<TokenPart>& symbols) const {
    if (!options_.unk_token) return;
    if (unk_ == kNoToken)
      throw ValueError(
          concat("BPE: text outside of the vocabulary, which lacks the unknown token '",
                 *options_.unk_token, "'"));
    if (!(options_.fuse_unk && after_unknown)) symbols.push_back({unk_, begin});
    after_unknown = true;
  }
  void split_bytes(std::string_view piece, std::vector<TokenPart>& symbols) const;
  void split_spelled_bytes(std::string_view piece, std::vector<TokenPart>& symbols) const;
  void split_characters(std::string_view piece, std::vector<TokenPart>& symbols) const;

  std::int32_t rank(std::int32_t left, std::int32_t right) const;

  void merge_short(std::vector<TokenPart>& symbols) const;

  void merge_long(const std::vector<TokenPart>& symbols, std::vector<TokenPart>& parts) const;

  BpeOptions options_;
  ByteTokens bytes_;
  std::int32_t unk_ = kNoToken;
  StringMap<std::int32_t> ids_;
  FlatMap<Merge> merges_;
  std::array<std::int32_t, 256> alphabet_{};
};

}  // namespace graft::inline v0_1::text

#if !defined(GRAFT_FILES_COMPILED)
#include "graft/text/impl/bpe_impl.hpp"
#endif
