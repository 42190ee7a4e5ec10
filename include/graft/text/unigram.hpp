#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graft/base/error.hpp"
#include "graft/text/lookup.hpp"
#include "graft/text/unicode.hpp"
#include "graft/text/vocabulary.hpp"

namespace graft::inline v0_1::text {

struct UnigramPiece {
  std::string text;
  std::int32_t id = kNoToken;
  double score = 0;           ///< log probability
  bool user_defined = false;  ///< scored as bytes · highest score − 0.1 instead
};

struct UnigramOptions {
  std::int32_t unk_id = kNoToken;
  bool byte_fallback = false;
  /// Sums of scores are rounded to f32, as SentencePiece does; `tokenizer.json` goes with f64.
  bool single_precision = false;
};

/// Unigram language model: of all ways to cut a piece into tokens, the one with the largest sum of
/// scores (Viterbi). A character that no token covers costs the lowest score minus 10; runs of them
/// are one unknown token. Of equal sums the one found first wins: longer tokens on the left.
/// Source: Kudo 2018, "Subword Regularization", §3; Kudo & Richardson 2018, "SentencePiece".
class UnigramModel {
 public:
  UnigramModel(const Vocabulary& vocabulary, const std::vector<UnigramPiece>& pieces,
               UnigramOptions options)
      : options_(options), bytes_(options.byte_fallback ? ByteTokens(vocabulary) : ByteTokens()) {
    double highest = -std::numeric_limits<double>::infinity();
    lowest_ = std::numeric_limits<double>::infinity();
    for (const UnigramPiece& piece : pieces) {
      if (!(std::abs(piece.score) <= std::numeric_limits<double>::max())) {
        throw ValueError(concat("Unigram: the score of '", piece.text, "' is not finite"));
      }
      if (piece.user_defined) continue;
      lowest_ = std::min(lowest_, piece.score);
      highest = std::max(highest, piece.score);
    }
    if (lowest_ > highest) lowest_ = highest = 0;
    for (const UnigramPiece& piece : pieces) {
      const auto characters = static_cast<double>(piece.text.size());
      nodes_.push_back({piece.id, piece.user_defined ? characters * highest - 0.1 : piece.score});
      trie_.insert(piece.text, static_cast<std::int32_t>(nodes_.size() - 1));
    }
  }

  /// Errors: ValueError when something is unknown and there is no unknown token.
  void tokenize(std::string_view piece, std::vector<TokenPart>& parts) const {
    struct Best {
      double score = 0;
      std::size_t begin = kUnreached;
      std::int32_t id = kNoToken;
    };
    std::vector<Best> best(piece.size() + 1);
    const double unknown_score = add(lowest_, -10.0);
    for (std::size_t begin = 0; begin < piece.size();) {
      const double so_far = best[begin].score;
      const std::size_t character = utf8_length(piece[begin]);
      bool covered = false;
      const auto offer = [&](std::size_t length, std::int32_t id, double score) {
        Best& end = best[begin + length];
        const double candidate = add(so_far, score);
        if (end.begin == kUnreached || candidate > end.score) end = {candidate, begin, id};
      };
      trie_.for_each_prefix(piece, begin, [&](std::size_t length, std::int32_t node) {
        const auto& [id, score] = nodes_[static_cast<std::size_t>(node)];
        offer(length, id, score);
        covered = covered || length == character;
      });
      if (!covered) offer(std::min(character, piece.size() - begin), kUnknown, unknown_score);
      begin += character;
    }
    // Backwards from the end; a run of unknown characters is one token.
    std::vector<std::pair<std::size_t, std::int32_t>> path;
    for (std::size_t end = piece.size(); end > 0; end = best[end].begin) {
      const Best& step = best[end];
      const bool unknown = step.id == kUnknown || step.id == options_.unk_id;
      if (unknown && !path.empty() && path.back().second == kUnknown) {
        path.back().first = step.begin;
      } else {
        path.emplace_back(step.begin, unknown ? kUnknown : step.id);
      }
    }
    std::reverse(path.begin(), path.end());
    for (std::size_t i = 0; i < path.size(); ++i) {
      const auto [begin, id] = path[i];
      const std::size_t end = i + 1 < path.size() ? path[i + 1].first : piece.size();
      const auto place = static_cast<std::uint32_t>(begin);
      if (id != kUnknown) {
        parts.push_back({id, place});
      } else if (!bytes_.append(piece.substr(begin, end - begin), place, parts)) {
        if (options_.unk_id == kNoToken) {
          throw ValueError("Unigram: text outside of the vocabulary, and no unknown token");
        }
        parts.push_back({options_.unk_id, place});
      }
    }
  }

 private:
  static constexpr std::size_t kUnreached = std::numeric_limits<std::size_t>::max();
  static constexpr std::int32_t kUnknown = -2;
  struct Node {
    std::int32_t id;
    double score;
  };

  double add(double a, double b) const {
    return options_.single_precision ? static_cast<double>(static_cast<float>(a + b)) : a + b;
  }

  UnigramOptions options_;
  ByteTokens bytes_;
  double lowest_ = 0;
  std::vector<Node> nodes_;
  ByteTrie trie_;
};

}  // namespace graft::inline v0_1::text
