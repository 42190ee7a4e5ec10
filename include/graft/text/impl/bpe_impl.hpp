#pragma once

#include <algorithm>
#include <queue>

#include "graft/text/bpe.hpp"

namespace graft::inline v0_1::text {

GRAFT_IO void BpeModel::tokenize(std::string_view piece, std::vector<TokenPart>& parts) const {
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

GRAFT_IO std::int32_t BpeModel::find(std::string_view token) const {
  const auto found = ids_.find(token);
  return found == ids_.end() ? kNoToken : found->second;
}

GRAFT_IO void BpeModel::split_bytes(std::string_view piece, std::vector<TokenPart>& symbols) const {
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

GRAFT_IO void BpeModel::split_spelled_bytes(std::string_view piece,
                                            std::vector<TokenPart>& symbols) const {
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

GRAFT_IO void BpeModel::split_characters(std::string_view piece,
                                         std::vector<TokenPart>& symbols) const {
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

GRAFT_IO std::int32_t BpeModel::rank(std::int32_t left, std::int32_t right) const {
  const Merge* merge = merges_.find(pair_key(left, right));
  return merge == nullptr ? kNever : merge->rank;
}

GRAFT_IO void BpeModel::merge_short(std::vector<TokenPart>& symbols) const {
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

GRAFT_IO void BpeModel::merge_long(const std::vector<TokenPart>& symbols,
                                   std::vector<TokenPart>& parts) const {
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

}  // namespace graft::inline v0_1::text
