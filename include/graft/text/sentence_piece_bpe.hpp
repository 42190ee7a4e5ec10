#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
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

enum class PieceKind { normal, user_defined, unused };

struct ScoredPiece {
  std::string text;
  std::int32_t id = kNoToken;
  float score = 0;
  PieceKind kind = PieceKind::normal;
};

struct SentencePieceBpeOptions {
  std::int32_t unk_id = kNoToken;
  bool byte_fallback = false;
};

/// Byte-pair encoding by scores, as SentencePiece does it: of all neighbours whose concatenation is
/// a token, those with the highest score are merged first, the leftmost first among equals.
/// User-defined tokens stay whole; unused ones help to merge and are taken apart again at the end.
/// Source: Kudo & Richardson 2018, "SentencePiece", section 3.
class SentencePieceBpeModel {
 public:
  SentencePieceBpeModel(const Vocabulary& vocabulary, const std::vector<ScoredPiece>& pieces,
                        SentencePieceBpeOptions options)
      : options_(options), bytes_(options.byte_fallback ? ByteTokens(vocabulary) : ByteTokens()) {
    for (const ScoredPiece& piece : pieces) {
      if (!(piece.score <= std::numeric_limits<float>::max())) {
        throw ValueError(concat("BPE: the score of '", piece.text, "' is not a number"));
      }
      entries_[piece.text] = {piece.id, piece.score, piece.kind == PieceKind::unused};
      if (piece.kind == PieceKind::user_defined) whole_.insert(piece.text, piece.id);
    }
  }

  void tokenize(std::string_view piece, std::vector<TokenPart>& parts) const {
    struct Symbol {
      std::size_t begin, length;
      std::int32_t previous, next;
      bool frozen;
    };
    struct Candidate {
      float score;
      std::int32_t left, right;
      std::size_t length;
      bool operator<(const Candidate& other) const {  // the queue's top is its largest element
        return score != other.score ? score < other.score : left > other.left;
      }
    };
    std::vector<Symbol> symbols;
    for (std::size_t i = 0; i < piece.size();) {
      const auto at = static_cast<std::int32_t>(symbols.size());
      const std::size_t whole = whole_.longest_prefix(piece, i).first;
      const std::size_t length =
          whole > 0 ? whole : std::min(utf8_length(piece[i]), piece.size() - i);
      symbols.push_back({i, length, at - 1, at + 1, whole > 0});
      i += length;
    }
    if (symbols.empty()) return;
    symbols.back().next = -1;
    const auto symbol = [&](std::int32_t i) -> Symbol& {
      return symbols[static_cast<std::size_t>(i)];
    };

    StringMap<std::size_t> unused_splits;  // an unused token: length of its left part
    std::priority_queue<Candidate> queue;
    const auto consider = [&](std::int32_t left, std::int32_t right) {
      if (left < 0 || right < 0 || symbol(left).frozen || symbol(right).frozen) return;
      const std::size_t length = symbol(left).length + symbol(right).length;
      const std::string_view merged = piece.substr(symbol(left).begin, length);
      const auto entry = entries_.find(merged);
      if (entry == entries_.end()) return;
      queue.push({entry->second.score, left, right, length});
      if (entry->second.unused) {
        unused_splits.insert_or_assign(std::string(merged), symbol(left).length);
      }
    };
    for (std::size_t i = 1; i < symbols.size(); ++i)
      consider(static_cast<std::int32_t>(i - 1), static_cast<std::int32_t>(i));
    while (!queue.empty()) {
      const Candidate top = queue.top();
      queue.pop();
      Symbol& left = symbol(top.left);
      Symbol& right = symbol(top.right);
      if (left.length == 0 || right.length == 0 || left.length + right.length != top.length)
        continue;  // one of them has changed since
      left.length = top.length;
      left.next = right.next;
      if (right.next >= 0) symbol(right.next).previous = top.left;
      right.length = 0;
      consider(left.previous, top.left);
      consider(top.left, left.next);
    }

    bool after_unknown = false;
    for (std::int32_t i = 0; i >= 0; i = symbol(i).next)
      emit(piece, symbol(i).begin, symbol(i).length, unused_splits, after_unknown, parts);
  }

 private:
  struct Entry {
    std::int32_t id;
    float score;
    bool unused;
  };

  void emit(std::string_view piece, std::size_t begin, std::size_t length,
            const StringMap<std::size_t>& unused_splits, bool& after_unknown,
            std::vector<TokenPart>& parts) const {
    const std::string_view token = piece.substr(begin, length);
    const auto entry = entries_.find(token);
    if (entry != entries_.end() && entry->second.unused) {
      if (const auto split = unused_splits.find(token); split != unused_splits.end()) {
        emit(piece, begin, split->second, unused_splits, after_unknown, parts);
        emit(piece, begin + split->second, length - split->second, unused_splits, after_unknown,
             parts);
        return;
      }
    }
    const auto place = static_cast<std::uint32_t>(begin);
    if (entry != entries_.end()) {
      parts.push_back({entry->second.id, place});
      after_unknown = false;
    } else if (bytes_.append(token, place, parts)) {
      after_unknown = false;
    } else {
      if (options_.unk_id != kNoToken && !after_unknown) parts.push_back({options_.unk_id, place});
      after_unknown = true;
    }
  }

  SentencePieceBpeOptions options_;
  ByteTokens bytes_;
  StringMap<Entry> entries_;
  ByteTrie whole_;
};

}  // namespace graft::inline v0_1::text
