#pragma once

#include <algorithm>
#include <limits>

#include "graft/base/error.hpp"
#include "graft/text/tokenizer.hpp"

namespace graft::inline v0_1::text {

GRAFT_IO Tokenizer::Tokenizer(TokenizerParts parts) {
  if (!parts.model) throw ValueError("Tokenizer: no model");
  auto state = std::make_shared<State>();
  std::vector<AddedToken> raw, normalized;
  for (const AddedToken& token : parts.added_tokens) {
    if (token.special) state->special_ids.insert(token.id);
    if (!token.normalized) {
      raw.push_back(token);
    } else {
      normalized.push_back(token);
      normalized.back().content = parts.normalizer(token.content);
      if (normalized.back().content != token.content)
        state->spellings[token.id] = normalized.back().content;
    }
  }
  state->raw_tokens = AddedTokenMatcher(std::move(raw));
  state->normalized_tokens = AddedTokenMatcher(std::move(normalized));
  state->parts = std::move(parts);
  state_ = std::move(state);
}

/// The state of one call of `tokenize`.
struct Tokenizer::Run {
  const Tokenizer& owner;
  std::vector<std::int32_t>& ids;
  std::vector<std::uint8_t>* marked;
  detail::WordCache& cache;
  bool parse_special;
  std::span<const TextRange> ranges;
  std::vector<TextRange> local;  // the ranges in the normalised segment
  std::vector<TokenPart> parts;

  void segment(std::string_view raw, Index begin) {
    const State& state = *owner.state_;
    const bool plain = state.parts.normalizer.empty();
    const std::string changed = plain ? std::string() : state.parts.normalizer(raw);
    const std::string_view text = plain ? raw : std::string_view(changed);
    if (marked != nullptr) carry_over(raw, begin, text);
    state.normalized_tokens.split(
        text, parse_special,
        [&](std::size_t first, std::size_t last) {
          piece({text.substr(first, last - first), static_cast<Index>(first), nullptr,
                 begin == 0 && first == 0});
        },
        [&](std::int32_t id, std::size_t first, std::size_t last) {
          push(id, static_cast<Index>(first), static_cast<Index>(last), local);
        });
  }

  void carry_over(std::string_view raw, Index begin, std::string_view text) {
    const Normalizer& normalizer = owner.state_->parts.normalizer;
    const auto carry = [&](Index place) {
      place -= begin;
      if (place <= 0) return Index{0};
      if (place >= static_cast<Index>(raw.size())) return std::numeric_limits<Index>::max();
      if (normalizer.empty()) return place;
      const std::string before = normalizer(raw.substr(0, static_cast<std::size_t>(place)));
      return static_cast<Index>(std::min(before.size(), text.size()));
    };
    local.clear();
    for (const TextRange& range : ranges) {
      if (range.end > begin && range.begin < begin + static_cast<Index>(raw.size()))
        local.push_back({carry(range.begin), carry(range.end)});
    }
  }

  void piece(const Piece& whole) {
    Pieces pieces(whole);
    owner.state_->parts.pre_tokenizer(pieces);
    for (const Piece& word : pieces.list()) {
      parts.clear();
      const bool cached = word.text.size() <= detail::WordCache::kMaxWord;
      if (!cached || !cache.find(word.text, parts)) {
        std::visit([&](const auto& model) { model.tokenize(word.text, parts); },
                   *owner.state_->parts.model);
        if (cached) cache.insert(word.text, parts);
      }
      for (std::size_t i = 0; i < parts.size(); ++i) {
        const Index end = i + 1 < parts.size() ? word.place(parts[i + 1].begin)
                                               : word.place(word.text.size() - 1) + 1;
        push(parts[i].id, word.place(parts[i].begin), end, local);
      }
    }
  }

  void push(std::int32_t id, Index begin, Index end, std::span<const TextRange> list) {
    ids.push_back(id);
    if (marked == nullptr) return;
    const bool overlaps = std::any_of(list.begin(), list.end(), [&](const TextRange& range) {
      return end > range.begin && begin < range.end;
    });
    marked->push_back(overlaps ? 1 : 0);
  }
};

GRAFT_IO std::vector<std::int32_t> Tokenizer::tokenize(std::string_view text,
                                                       bool parse_special) const {
  std::vector<std::int32_t> ids;
  tokenize(text, parse_special, ids, nullptr, {});
  return ids;
}

GRAFT_IO void Tokenizer::tokenize(std::string_view text, bool parse_special,
                                  std::vector<std::int32_t>& ids, std::vector<std::uint8_t>* marked,
                                  std::span<const TextRange> ranges) const {
  if (text.size() > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max()))
    throw ValueError("Tokenizer: one text may have at most 2 GiB");
  const std::unique_lock lock(state_->mutex, std::try_to_lock);
  detail::WordCache spare;  // while another thread holds the shared one
  Run run{*this, ids, marked, lock.owns_lock() ? state_->cache : spare, parse_special, {}, {}, {}};
  std::string repaired;
  std::vector<TextRange> moved(ranges.begin(), ranges.end());
  if (!is_valid_utf8(text)) {
    for (TextRange& range : moved) {
      for (Index* bound : {&range.begin, &range.end}) {
        const auto at = static_cast<std::size_t>(std::max<Index>(*bound, 0));
        *bound = static_cast<Index>(replace_invalid_utf8(text.substr(0, at)).size());
      }
    }
    repaired = replace_invalid_utf8(text);
    text = repaired;
  }
  run.ranges = moved;
  state_->raw_tokens.split(
      text, parse_special,
      [&](std::size_t begin, std::size_t end) {
        run.segment(text.substr(begin, end - begin), static_cast<Index>(begin));
      },
      [&](std::int32_t id, std::size_t begin, std::size_t end) {
        run.push(id, static_cast<Index>(begin), static_cast<Index>(end), run.ranges);
      });
}

GRAFT_IO std::vector<std::int32_t> Tokenizer::encode(std::string_view text,
                                                     const EncodeOptions& options) const {
  std::vector<std::int32_t> ids = tokenize(text, options.parse_special);
  const auto& pieces = state_->parts.encoding_template.single;
  if (!options.add_special && options.max_length == 0) return ids;
  return assemble(pieces, std::move(ids), {}, options).ids;
}

GRAFT_IO Encoding Tokenizer::encode_single(std::string_view text,
                                           const EncodeOptions& options) const {
  return assemble(state_->parts.encoding_template.single, tokenize(text, options.parse_special), {},
                  options);
}

GRAFT_IO Encoding Tokenizer::encode_pair(std::string_view first, std::string_view second,
                                         const EncodeOptions& options) const {
  return assemble(state_->parts.encoding_template.pair, tokenize(first, options.parse_special),
                  tokenize(second, options.parse_special), options);
}

GRAFT_IO MarkedEncoding Tokenizer::encode_marked(std::string_view text,
                                                 std::span<const TextRange> ranges,
                                                 bool parse_special) const {
  MarkedEncoding encoding;
  tokenize(text, parse_special, encoding.ids, &encoding.marked, ranges);
  return encoding;
}

GRAFT_IO std::string Tokenizer::decode(std::span<const std::int32_t> ids, bool skip_special) const {
  std::vector<std::string> texts;
  texts.reserve(ids.size());
  for (const std::int32_t id : ids) {
    if (id < 0) throw ValueError(concat("Tokenizer::decode: id ", id, " is negative"));
    if (!state_->parts.vocabulary.contains(id)) continue;
    const auto normalized = state_->spellings.find(id);
    if (skip_special && is_special(id) && normalized == state_->spellings.end()) continue;
    texts.push_back(normalized == state_->spellings.end() ? state_->parts.vocabulary.token(id)
                                                          : normalized->second);
  }
  return state_->parts.decoder(std::move(texts));
}

GRAFT_IO std::int32_t Tokenizer::mask_id() const {
  if (special().mask != kNoToken) return special().mask;
  for (const std::string_view name : {"[MASK]", "<mask>"})
    if (const std::int32_t id = id_of(name); is_special(id)) return id;
  return kNoToken;
}

GRAFT_IO std::vector<std::int32_t> Tokenizer::end_ids() const {
  std::vector<std::int32_t> ids;
  const auto add = [&](std::int32_t id) {
    if (id != kNoToken && std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
  };
  add(special().eos);
  add(special().eot);
  for (const std::string_view name : {"<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>",
                                      "<|end_of_text|>", "<|endoftext|>", "<eos>", "</s>"}) {
    if (const std::int32_t id = id_of(name); is_special(id)) add(id);
  }
  return ids;
}

GRAFT_IO std::pair<std::vector<std::int32_t>, std::vector<std::int32_t>> Tokenizer::frame() const {
  std::pair<std::vector<std::int32_t>, std::vector<std::int32_t>> around;
  bool behind = false;
  for (const TemplatePiece& piece : state_->parts.encoding_template.single) {
    auto& side = behind ? around.second : around.first;
    side.insert(side.end(), piece.ids.begin(), piece.ids.end());
    behind = behind || piece.kind == TemplatePiece::Kind::first;
  }
  return around;
}

GRAFT_IO Index Tokenizer::fixed_length(const std::vector<TemplatePiece>& pieces) {
  Index length = 0;
  for (const TemplatePiece& piece : pieces) length += static_cast<Index>(piece.ids.size());
  return length;
}

GRAFT_IO std::int32_t Tokenizer::edge(bool front) const {
  const auto& pieces = state_->parts.encoding_template.single;
  if (pieces.empty()) return kNoToken;
  const auto& ids = front ? pieces.front().ids : pieces.back().ids;
  return ids.empty() ? kNoToken : front ? ids.front() : ids.back();
}

GRAFT_IO Encoding Tokenizer::assemble(const std::vector<TemplatePiece>& pieces,
                                      std::vector<std::int32_t> first,
                                      std::vector<std::int32_t> second,
                                      const EncodeOptions& options) {
  if (options.max_length > 0) {
    const Index room = options.max_length - (options.add_special ? fixed_length(pieces) : 0);
    if (room < 0) {
      throw ValueError(concat("Tokenizer: max_length ", options.max_length,
                              " leaves no room for the special tokens"));
    }
    truncate(first, second, static_cast<std::size_t>(room));
  }
  Encoding encoding;
  const auto append = [&](const std::vector<std::int32_t>& ids, std::int32_t type) {
    encoding.ids.insert(encoding.ids.end(), ids.begin(), ids.end());
    encoding.type_ids.insert(encoding.type_ids.end(), ids.size(), type);
  };
  for (const TemplatePiece& piece : pieces) {
    switch (piece.kind) {
      case TemplatePiece::Kind::first:
        append(first, piece.type_id);
        break;
      case TemplatePiece::Kind::second:
        append(second, piece.type_id);
        break;
      case TemplatePiece::Kind::tokens:
        if (options.add_special) append(piece.ids, piece.type_id);
        break;
    }
  }
  return encoding;
}

GRAFT_IO void Tokenizer::truncate(std::vector<std::int32_t>& first,
                                  std::vector<std::int32_t>& second, std::size_t room) {
  if (first.size() + second.size() <= room) return;
  const bool swapped = first.size() > second.size();
  std::size_t shorter = std::min(first.size(), second.size());
  std::size_t longer = shorter > room ? shorter : std::max(shorter, room - shorter);
  if (shorter + longer > room) {
    shorter = room / 2;
    longer = room - shorter;
  }
  first.resize(std::min(first.size(), swapped ? longer : shorter));
  second.resize(std::min(second.size(), swapped ? shorter : longer));
}

GRAFT_IO std::string StreamDecoder::push(std::int32_t id) {
  if (skip_special_ && tokenizer_.is_special(id)) return {};
  window_.push_back(id);
  const std::string text = tokenizer_.decode(window_, skip_special_);
  std::string_view complete = text;
  while (complete.ends_with(kReplacementText)) complete.remove_suffix(kReplacementText.size());
  std::string fresh(complete.substr(std::min(emitted_, complete.size())));
  if (complete.size() < text.size()) {
    emitted_ = std::max(emitted_, complete.size());
  } else {
    // The tokens of the last characters stay as context, since a first token decodes differently;
    // blanks alone, which vanish at the beginning, do not make one.
    std::vector<std::int32_t> rest(window_.begin() + context_, window_.end());
    std::string kept = tokenizer_.decode(rest, skip_special_);
    if (!kept.empty()) {
      window_ = std::move(rest);
      context_ = static_cast<std::ptrdiff_t>(window_.size());
    }
    emitted_ = kept.empty() ? text.size() : kept.size();
  }
  return fresh;
}

GRAFT_IO std::string StreamDecoder::finish() {
  const std::string text = tokenizer_.decode(window_, skip_special_);
  std::string fresh = text.substr(std::min(emitted_, text.size()));
  window_.clear();
  context_ = 0;
  emitted_ = 0;
  return fresh;
}

GRAFT_IO bool detail::WordCache::find(std::string_view word, std::vector<TokenPart>& parts) const {
  const auto entry = words_.find(word);
  if (entry == words_.end()) return false;
  const auto begin = parts_.begin() + entry->second.first;
  parts.insert(parts.end(), begin, begin + entry->second.second);
  return true;
}

GRAFT_IO void detail::WordCache::insert(std::string_view word, std::span<const TokenPart> parts) {
  constexpr std::size_t kMaxWords = 1 << 16;
  if (words_.size() >= kMaxWords) {
    words_.clear();
    parts_.clear();
  }
  words_.emplace(std::string(word), std::pair(static_cast<std::uint32_t>(parts_.size()),
                                              static_cast<std::uint32_t>(parts.size())));
  parts_.insert(parts_.end(), parts.begin(), parts.end());
}

}  // namespace graft::inline v0_1::text
