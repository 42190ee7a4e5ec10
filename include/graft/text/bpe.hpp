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
  void tokenize(std::string_view piece, std::vector<TokenPart>& parts) const {
    if (options_.ignore_merges) {
      const std::int32_t whole =
          options_.byte_level ? find(ByteAlphabet::get().encode(piece)) : find(piece);
      if (whole != kNoToken) {
        parts.push_back({whole, 0});
        return;
      }
    }
    std::vector<TokenPart> symbols;
    symbols.reserve(piece.size());
    if (options_.byte_level && options_.continuing_subword_prefix.empty() &&
        options_.end_of_word_suffix.empty()) {
      split_bytes(piece, symbols);
    } else if (options_.byte_level) {
      split_spelled_bytes(piece, symbols);
    } else {
      split_characters(piece, symbols);
    }
    // Below this length, looking through all ranks again beats keeping a queue.
    constexpr std::size_t kShort = 40;
    if (symbols.size() <= kShort) {
      merge_short(symbols);
      parts.insert(parts.end(), symbols.begin(), symbols.end());
    } else {
      merge_long(symbols, parts);
    }
  }

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
  std::int32_t find(std::string_view token) const {
    const auto found = ids_.find(token);
    return found == ids_.end() ? kNoToken : found->second;
  }

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
  void split_bytes(std::string_view piece, std::vector<TokenPart>& symbols) const {
    bool after_unknown = false;
    for (std::size_t i = 0; i < piece.size(); ++i) {
      const std::int32_t id = alphabet_[static_cast<unsigned char>(piece[i])];
      if (id == kNoToken) {
        push_unknown(static_cast<std::uint32_t>(i), after_unknown, symbols);
      } else {
        symbols.push_back({id, static_cast<std::uint32_t>(i)});
        after_unknown = false;
      }
    }
  }
  void split_spelled_bytes(std::string_view piece, std::vector<TokenPart>& symbols) const {
    const std::string spelled = ByteAlphabet::get().encode(piece);
    std::vector<std::uint32_t> place;
    for (std::size_t i = 0; i < piece.size(); ++i) {
      const std::size_t length =
          ByteAlphabet::get().text(static_cast<unsigned char>(piece[i])).size();
      place.insert(place.end(), length, static_cast<std::uint32_t>(i));
    }
    split_characters(spelled, symbols);
    for (TokenPart& symbol : symbols) symbol.begin = place[symbol.begin];
  }
  void split_characters(std::string_view piece, std::vector<TokenPart>& symbols) const {
    bool after_unknown = false;
    std::string symbol;
    for_each_code_point(piece, [&](char32_t, std::size_t offset, std::size_t length) {
      symbol.clear();
      if (offset > 0) symbol.append(options_.continuing_subword_prefix);
      symbol.append(piece.substr(offset, length));
      if (offset + length == piece.size()) symbol.append(options_.end_of_word_suffix);
      const auto begin = static_cast<std::uint32_t>(offset);
      if (const std::int32_t id = find(symbol); id != kNoToken) {
        symbols.push_back({id, begin});
        after_unknown = false;
      } else if (options_.byte_fallback && bytes_.append(symbol, begin, symbols)) {
        after_unknown = false;
      } else {
        push_unknown(begin, after_unknown, symbols);
      }
    });
  }

  std::int32_t rank(std::int32_t left, std::int32_t right) const {
    const Merge* merge = merges_.find(pair_key(left, right));
    return merge == nullptr ? kNever : merge->rank;
  }

  void merge_short(std::vector<TokenPart>& symbols) const {
    std::array<std::int32_t, 64> ranks;  // of symbol i with the next one
    std::size_t count = symbols.size();
    for (std::size_t i = 0; i + 1 < count; ++i) ranks[i] = rank(symbols[i].id, symbols[i + 1].id);
    while (count > 1) {
      std::size_t best = 0;
      for (std::size_t i = 1; i + 1 < count; ++i) {
        if (ranks[i] < ranks[best]) best = i;
      }
      if (ranks[best] == kNever) break;
      symbols[best].id = merges_.find(pair_key(symbols[best].id, symbols[best + 1].id))->id;
      for (std::size_t i = best + 1; i + 1 < count; ++i) {
        symbols[i] = symbols[i + 1];
        ranks[i] = ranks[i + 1];
      }
      --count;
      if (best > 0) ranks[best - 1] = rank(symbols[best - 1].id, symbols[best].id);
      if (best + 1 < count) ranks[best] = rank(symbols[best].id, symbols[best + 1].id);
    }
    symbols.resize(count);
  }

  void merge_long(const std::vector<TokenPart>& symbols, std::vector<TokenPart>& parts) const {
    struct Node {
      std::int32_t id;
      std::int32_t previous, next;
    };
    struct Candidate {
      std::int32_t rank, left, left_id, right_id;
      bool operator<(const Candidate& other) const {  // the queue's top is its largest element
        return rank != other.rank ? rank > other.rank : left > other.left;
      }
    };
    const auto count = static_cast<std::int32_t>(symbols.size());
    std::vector<Node> nodes(symbols.size());
    const auto node = [&](std::int32_t i) -> Node& { return nodes[static_cast<std::size_t>(i)]; };
    for (std::int32_t i = 0; i < count; ++i) {
      node(i) = {symbols[static_cast<std::size_t>(i)].id, i - 1, i + 1 < count ? i + 1 : -1};
    }
    std::vector<Candidate> storage;
    storage.reserve(symbols.size());
    std::priority_queue<Candidate> queue({}, std::move(storage));
    const auto consider = [&](std::int32_t left) {
      if (left < 0 || node(left).next < 0) return;
      const std::int32_t left_id = node(left).id, right_id = node(node(left).next).id;
      const std::int32_t r = rank(left_id, right_id);
      if (r != kNever) queue.push({r, left, left_id, right_id});
    };
    for (std::int32_t i = 0; i + 1 < count; ++i) consider(i);
    while (!queue.empty()) {
      const Candidate top = queue.top();
      queue.pop();
      Node& left = node(top.left);
      if (left.id != top.left_id || left.next < 0) continue;
      Node& right = node(left.next);
      if (right.id != top.right_id) continue;
      left.id = merges_.find(pair_key(top.left_id, top.right_id))->id;
      right.id = kNoToken;  // absorbed
      left.next = right.next;
      if (left.next >= 0) node(left.next).previous = top.left;
      consider(left.previous);
      consider(top.left);
    }
    for (std::int32_t i = count > 0 ? 0 : -1; i >= 0; i = node(i).next)
      parts.push_back({node(i).id, symbols[static_cast<std::size_t>(i)].begin});
  }

  BpeOptions options_;
  ByteTokens bytes_;
  std::int32_t unk_ = kNoToken;
  StringMap<std::int32_t> ids_;
  FlatMap<Merge> merges_;
  std::array<std::int32_t, 256> alphabet_{};
};

}  // namespace graft::inline v0_1::text
