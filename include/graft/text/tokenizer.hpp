#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <variant>
#include <vector>

#include "graft/base/error.hpp"
#include "graft/base/types.hpp"
#include "graft/text/added_tokens.hpp"
#include "graft/text/bpe.hpp"
#include "graft/text/decoder.hpp"
#include "graft/text/lookup.hpp"
#include "graft/text/normalizer.hpp"
#include "graft/text/pre_tokenizer.hpp"
#include "graft/text/sentence_piece_bpe.hpp"
#include "graft/text/unicode.hpp"
#include "graft/text/unigram.hpp"
#include "graft/text/vocabulary.hpp"
#include "graft/text/word_level.hpp"
#include "graft/text/word_piece.hpp"

namespace graft::inline v0_1::text {

/// Tokens with a role; kNoToken where the vocabulary has none.
struct SpecialTokens {
  std::int32_t bos = kNoToken;  ///< begins a text
  std::int32_t eos = kNoToken;  ///< ends one
  std::int32_t eot = kNoToken;  ///< ends a turn of a conversation
  std::int32_t pad = kNoToken;
  std::int32_t unk = kNoToken;
  std::int32_t cls = kNoToken;
  std::int32_t sep = kNoToken;
  std::int32_t mask = kNoToken;
};

/// Part of what surrounds the tokens of a text: the first text, the second, or fixed tokens.
struct TemplatePiece {
  enum class Kind { first, second, tokens };
  Kind kind = Kind::tokens;
  std::vector<std::int32_t> ids;
  std::int32_t type_id = 0;
};

/// How special tokens are put around one text and around two.
struct EncodingTemplate {
  std::vector<TemplatePiece> single{{TemplatePiece::Kind::first, {}, 0}};
  std::vector<TemplatePiece> pair{{TemplatePiece::Kind::first, {}, 0},
                                  {TemplatePiece::Kind::second, {}, 1}};
};

using TokenModel =
    std::variant<BpeModel, WordPieceModel, WordLevelModel, UnigramModel, SentencePieceBpeModel>;

/// What a tokenizer is made of; the loaders fill it.
struct TokenizerParts {
  Vocabulary vocabulary;
  std::vector<AddedToken> added_tokens;
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  std::optional<TokenModel> model;
  EncodingTemplate encoding_template;
  Decoder decoder;
  SpecialTokens special;
  std::string chat_template;  ///< Jinja text, empty if the model has none
};

struct EncodeOptions {
  bool add_special = true;    ///< puts bos, eos, [CLS], … as the model's template says
  bool parse_special = true;  ///< "<|im_end|>" in the text is the control token, not eleven letters
  Index max_length = 0;       ///< longer results lose tokens of the text at its end; 0: no limit
};

struct Encoding {
  std::vector<std::int32_t> ids;
  std::vector<std::int32_t> type_ids;  ///< 0 for the first text, 1 for the second
};

/// Bytes [begin, end) of a text.
struct TextRange {
  Index begin = 0;
  Index end = 0;
};

struct MarkedEncoding {
  std::vector<std::int32_t> ids;
  std::vector<std::uint8_t> marked;  ///< 1 where the token holds text of one of the ranges
};

namespace detail {

/// Tokens of words that occurred before.
class WordCache {
 public:
  static constexpr std::size_t kMaxWord = 64;

  bool find(std::string_view word, std::vector<TokenPart>& parts) const {
    const auto entry = words_.find(word);
    if (entry == words_.end()) return false;
    const auto begin = parts_.begin() + entry->second.first;
    parts.insert(parts.end(), begin, begin + entry->second.second);
    return true;
  }
  void insert(std::string_view word, std::span<const TokenPart> parts) {
    constexpr std::size_t kMaxWords = 1 << 16;
    if (words_.size() >= kMaxWords) {
      words_.clear();
      parts_.clear();
    }
    words_.emplace(std::string(word), std::pair(static_cast<std::uint32_t>(parts_.size()),
                                                static_cast<std::uint32_t>(parts.size())));
    parts_.insert(parts_.end(), parts.begin(), parts.end());
  }

 private:
  StringMap<std::pair<std::uint32_t, std::uint32_t>> words_;
  std::vector<TokenPart> parts_;
};

}  // namespace detail

/// Text to token ids and back. A value that is cheap to copy; copies share the vocabulary. All
/// member functions may be called from several threads at once.
///
/// Encoding: added tokens are cut out of the text; what lies between is normalised, split into
/// pieces, and each piece tokenised by the model; then the template adds special tokens. Bytes that
/// are not UTF-8 count as U+FFFD. Results equal those of the `tokenizers` library for
/// `tokenizer.json`, of SentencePiece for `.model`; for characters younger than ICU's and PCRE2's
/// Unicode tables (15 and 14 in Debian 12) splitting may differ.
class Tokenizer {
 public:
  /// Errors: ValueError when the parts hold no model.
  explicit Tokenizer(TokenizerParts parts) {
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

  /// Errors: ValueError when `max_length` leaves no room for the special tokens.
  std::vector<std::int32_t> encode(std::string_view text, const EncodeOptions& options = {}) const {
    std::vector<std::int32_t> ids = tokenize(text, options.parse_special);
    const auto& pieces = state_->parts.encoding_template.single;
    if (!options.add_special && options.max_length == 0) return ids;
    return assemble(pieces, std::move(ids), {}, options).ids;
  }

  /// One text with token types.
  Encoding encode_single(std::string_view text, const EncodeOptions& options = {}) const {
    return assemble(state_->parts.encoding_template.single, tokenize(text, options.parse_special),
                    {}, options);
  }

  /// Two texts in one sequence, as the template says: "[CLS] first [SEP] second [SEP]" for BERT.
  /// `max_length` takes tokens from the longer text first.
  Encoding encode_pair(std::string_view first, std::string_view second,
                       const EncodeOptions& options = {}) const {
    return assemble(state_->parts.encoding_template.pair, tokenize(first, options.parse_special),
                    tokenize(second, options.parse_special), options);
  }

  /// Tokens of a text, without the template, and which of them hold text of the ranges; a token
  /// that reaches over the edge of a range counts. A range must not begin or end inside a
  /// character. Where a normaliser changes the text, the bounds are carried over by normalising the
  /// text before them.
  MarkedEncoding encode_marked(std::string_view text, std::span<const TextRange> ranges,
                               bool parse_special = true) const {
    MarkedEncoding encoding;
    tokenize(text, parse_special, encoding.ids, &encoding.marked, ranges);
    return encoding;
  }

  /// Text of the tokens; an added token that is looked for in normalised text stands for its
  /// normalised spelling, and where this is another one, a special token is not left out. Ids from
  /// vocab_size() on, which padded embeddings have, stand for nothing. Errors: ValueError for
  /// negative ids.
  std::string decode(std::span<const std::int32_t> ids, bool skip_special = false) const {
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

  /// One more than the largest id.
  Index vocab_size() const { return state_->parts.vocabulary.size(); }
  /// Id of a token by its exact spelling, kNoToken if there is none.
  std::int32_t id_of(std::string_view token) const { return state_->parts.vocabulary.find(token); }
  /// Spelling of a token in the vocabulary. Errors: ValueError when the id is unknown.
  const std::string& token(std::int32_t id) const { return state_->parts.vocabulary.token(id); }
  bool is_special(std::int32_t id) const { return state_->special_ids.contains(id); }

  const SpecialTokens& special() const { return state_->parts.special; }
  std::int32_t bos_id() const { return special().bos; }
  std::int32_t eos_id() const { return special().eos; }
  /// The padding token; eos, else 0, where there is none (padding is masked, its id has no
  /// meaning).
  std::int32_t pad_id() const {
    return special().pad != kNoToken ? special().pad : std::max(special().eos, 0);
  }
  std::int32_t unk_id() const { return special().unk; }
  /// The token that hides another one: by its role, else by its usual names, since files often
  /// name no roles.
  std::int32_t mask_id() const {
    if (special().mask != kNoToken) return special().mask;
    for (const std::string_view name : {"[MASK]", "<mask>"})
      if (const std::int32_t id = id_of(name); is_special(id)) return id;
    return kNoToken;
  }
  /// Tokens after which a generated answer is complete: eos, eot, and control tokens that are known
  /// by name to end a text or a turn, since files often name only one of them.
  std::vector<std::int32_t> end_ids() const {
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
  /// Whether `add_special` puts bos at the beginning, eos at the end.
  bool adds_bos() const { return edge(true) != kNoToken && edge(true) == bos_id(); }
  bool adds_eos() const { return edge(false) != kNoToken && edge(false) == eos_id(); }
  /// Number of tokens that `add_special` adds to one text.
  Index added_length() const { return fixed_length(state_->parts.encoding_template.single); }

  /// What `add_special` puts before and after the tokens of one text.
  std::pair<std::vector<std::int32_t>, std::vector<std::int32_t>> frame() const {
    std::pair<std::vector<std::int32_t>, std::vector<std::int32_t>> around;
    bool behind = false;
    for (const TemplatePiece& piece : state_->parts.encoding_template.single) {
      auto& side = behind ? around.second : around.first;
      side.insert(side.end(), piece.ids.begin(), piece.ids.end());
      behind = behind || piece.kind == TemplatePiece::Kind::first;
    }
    return around;
  }

  /// Jinja text of the model's chat template, empty if it has none.
  const std::string& chat_template() const { return state_->parts.chat_template; }
  const TokenizerParts& parts() const { return state_->parts; }

 private:
  struct State {
    TokenizerParts parts;
    AddedTokenMatcher raw_tokens;
    AddedTokenMatcher normalized_tokens;
    std::unordered_set<std::int32_t> special_ids;
    /// Of added tokens that are looked for in normalised text, where normalising changes them.
    std::unordered_map<std::int32_t, std::string> spellings;
    mutable std::mutex mutex;  // of the cache
    mutable detail::WordCache cache;
  };

  static Index fixed_length(const std::vector<TemplatePiece>& pieces) {
    Index length = 0;
    for (const TemplatePiece& piece : pieces) length += static_cast<Index>(piece.ids.size());
    return length;
  }
  std::int32_t edge(bool front) const {
    const auto& pieces = state_->parts.encoding_template.single;
    if (pieces.empty()) return kNoToken;
    const auto& ids = front ? pieces.front().ids : pieces.back().ids;
    return ids.empty() ? kNoToken : front ? ids.front() : ids.back();
  }

  static Encoding assemble(const std::vector<TemplatePiece>& pieces,
                           std::vector<std::int32_t> first, std::vector<std::int32_t> second,
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

  /// Longest first: the shorter text stays whole as long as it fits in half of the room.
  static void truncate(std::vector<std::int32_t>& first, std::vector<std::int32_t>& second,
                       std::size_t room) {
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

  std::vector<std::int32_t> tokenize(std::string_view text, bool parse_special) const {
    std::vector<std::int32_t> ids;
    tokenize(text, parse_special, ids, nullptr, {});
    return ids;
  }

  void tokenize(std::string_view text, bool parse_special, std::vector<std::int32_t>& ids,
                std::vector<std::uint8_t>* marked, std::span<const TextRange> ranges) const {
    if (text.size() > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max()))
      throw ValueError("Tokenizer: one text may have at most 2 GiB");
    const std::unique_lock lock(state_->mutex, std::try_to_lock);
    detail::WordCache spare;  // while another thread holds the shared one
    Run run{*this,         ids, marked, lock.owns_lock() ? state_->cache : spare,
            parse_special, {},  {},     {}};
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

  /// The state of one call of `tokenize`.
  struct Run {
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

  std::shared_ptr<const State> state_;
};

/// Decodes a stream of tokens to text that always ends between two characters: a character whose
/// bytes come in several tokens appears when it is complete.
class StreamDecoder {
 public:
  explicit StreamDecoder(Tokenizer tokenizer, bool skip_special = true)
      : tokenizer_(std::move(tokenizer)), skip_special_(skip_special) {}

  /// The text that this token completes, often empty in the middle of a character.
  std::string push(std::int32_t id) {
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

  /// The rest, with U+FFFD for bytes that never became a character. Starts anew afterwards.
  std::string finish() {
    const std::string text = tokenizer_.decode(window_, skip_special_);
    std::string fresh = text.substr(std::min(emitted_, text.size()));
    window_.clear();
    context_ = 0;
    emitted_ = 0;
    return fresh;
  }

 private:
  Tokenizer tokenizer_;
  bool skip_special_;
  std::vector<std::int32_t> window_;
  std::ptrdiff_t context_ = 0;  // tokens of the window whose text was returned in full
  std::size_t emitted_ = 0;     // bytes of the window's text that were returned
};

}  // namespace graft::inline v0_1::text
