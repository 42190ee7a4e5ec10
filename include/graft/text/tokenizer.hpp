#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
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

#include "graft/base/types.hpp"
#include "graft/config.hpp"
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

  bool find(std::string_view word, std::vector<TokenPart>& parts) const;
  void insert(std::string_view word, std::span<const TokenPart> parts);

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
  explicit Tokenizer(TokenizerParts parts);

  /// Errors: ValueError when `max_length` leaves no room for the special tokens.
  std::vector<std::int32_t> encode(std::string_view text, const EncodeOptions& options = {}) const;

  /// One text with token types.
  Encoding encode_single(std::string_view text, const EncodeOptions& options = {}) const;

  /// Two texts in one sequence, as the template says: "[CLS] first [SEP] second [SEP]" for BERT.
  /// `max_length` takes tokens from the longer text first.
  Encoding encode_pair(std::string_view first, std::string_view second,
                       const EncodeOptions& options = {}) const;

  /// Tokens of a text, without the template, and which of them hold text of the ranges; a token
  /// that reaches over the edge of a range counts. A range must not begin or end inside a
  /// character. Where a normaliser changes the text, the bounds are carried over by normalising the
  /// text before them.
  MarkedEncoding encode_marked(std::string_view text, std::span<const TextRange> ranges,
                               bool parse_special = true) const;

  /// Text of the tokens; an added token that is looked for in normalised text stands for its
  /// normalised spelling, and where this is another one, a special token is not left out. Ids from
  /// vocab_size() on, which padded embeddings have, stand for nothing. Errors: ValueError for
  /// negative ids.
  std::string decode(std::span<const std::int32_t> ids, bool skip_special = false) const;

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
  std::int32_t mask_id() const;
  /// Tokens after which a generated answer is complete: eos, eot, and control tokens that are known
  /// by name to end a text or a turn, since files often name only one of them.
  std::vector<std::int32_t> end_ids() const;
  /// Whether `add_special` puts bos at the beginning, eos at the end.
  bool adds_bos() const { return edge(true) != kNoToken && edge(true) == bos_id(); }
  bool adds_eos() const { return edge(false) != kNoToken && edge(false) == eos_id(); }
  /// Number of tokens that `add_special` adds to one text.
  Index added_length() const { return fixed_length(state_->parts.encoding_template.single); }

  /// What `add_special` puts before and after the tokens of one text.
  std::pair<std::vector<std::int32_t>, std::vector<std::int32_t>> frame() const;

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

  static Index fixed_length(const std::vector<TemplatePiece>& pieces);
  std::int32_t edge(bool front) const;

  static Encoding assemble(const std::vector<TemplatePiece>& pieces,
                           std::vector<std::int32_t> first, std::vector<std::int32_t> second,
                           const EncodeOptions& options);

  /// Longest first: the shorter text stays whole as long as it fits in half of the room.
  static void truncate(std::vector<std::int32_t>& first, std::vector<std::int32_t>& second,
                       std::size_t room);

  std::vector<std::int32_t> tokenize(std::string_view text, bool parse_special) const;

  void tokenize(std::string_view text, bool parse_special, std::vector<std::int32_t>& ids,
                std::vector<std::uint8_t>* marked, std::span<const TextRange> ranges) const;

  struct Run;
  std::shared_ptr<const State> state_;
};

/// Decodes a stream of tokens to text that always ends between two characters: a character whose
/// bytes come in several tokens appears when it is complete.
class StreamDecoder {
 public:
  explicit StreamDecoder(Tokenizer tokenizer, bool skip_special = true)
      : tokenizer_(std::move(tokenizer)), skip_special_(skip_special) {}

  /// The text that this token completes, often empty in the middle of a character.
  std::string push(std::int32_t id);

  /// The rest, with U+FFFD for bytes that never became a character. Starts anew afterwards.
  std::string finish();

 private:
  Tokenizer tokenizer_;
  bool skip_special_;
  std::vector<std::int32_t> window_;
  std::ptrdiff_t context_ = 0;  // tokens of the window whose text was returned in full
  std::size_t emitted_ = 0;     // bytes of the window's text that were returned
};

}  // namespace graft::inline v0_1::text

#if !defined(GRAFT_FILES_COMPILED)
#include "graft/text/impl/tokenizer_impl.hpp"
#endif
