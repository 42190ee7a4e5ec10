#pragma once

#include <algorithm>
#include <initializer_list>
#include <utility>
#include <vector>

#include "graft/base/error.hpp"
#include "graft/base/types.hpp"
#include "graft/io/utf8.hpp"
#include "graft/text/gguf_tokenizer.hpp"

namespace graft::inline v0_1::text {

namespace detail {

/// Reads the tokenizer of a GGUF file. Complaints name the metadata key.
class GgufTokenizerReader {
  /// Runs a constructor and turns its ValueError into an IoError that names the key.
  template <class Make>
  auto guarded(std::string_view key, Make&& make) const {
    try {
      return make();
    } catch (const ValueError& error) {
      fail(key, error.what());
    }
  }

 public:
  GgufTokenizerReader(const io::GgufMetadata& metadata, std::string_view source)
      : metadata_(metadata), source_(source) {}

  TokenizerParts read() {
    const std::string model = metadata_.get_string("tokenizer.ggml.model");
    tokens_ = &metadata_.get_strings("tokenizer.ggml.tokens");
    types_ = metadata_.get_ints("tokenizer.ggml.token_type", {});
    if (!types_.empty() && types_.size() != tokens_->size()) {
      fail("token_type",
           concat("has ", types_.size(), " entries for ", tokens_->size(), " tokens"));
    }
    const bool bert = model == "bert";
    for (std::size_t i = 0; i < tokens_->size(); ++i) {
      const auto id = static_cast<std::int32_t>(i);
      const std::string token = bert ? word_piece((*tokens_)[i]) : (*tokens_)[i];
      if (!io::is_utf8(token)) fail("tokens", concat("token ", i, " is not UTF-8"));
      guarded("tokens", [&] { parts_.vocabulary.set(token, id); });
      add_token(i, token);
    }
    read_special();
    parts_.chat_template = metadata_.get_string("tokenizer.chat_template", "");
    if (model == "gpt2") {
      read_bpe();
    } else if (model == "llama" || model == "gemma") {
      read_sentence_piece_bpe();
    } else if (model == "t5") {
      read_unigram();
    } else if (bert) {
      read_word_piece();
    } else {
      fail("model", concat("'", model, "' is not supported; supported: gpt2, llama, t5, bert"));
    }
    return std::move(parts_);
  }

 private:
  /// The numbers of `tokenizer.ggml.token_type`.
  enum Type { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };

  [[noreturn]] void fail(std::string_view key, std::string_view complaint) const {
    throw IoError(concat(source_, ": metadata key 'tokenizer.ggml.", key, "': ", complaint));
  }
  std::int64_t type(std::size_t i) const {
    return types_.empty() ? std::int64_t{kNormal} : types_[i];
  }

  void add_token(std::size_t i, const std::string& content) {
    const std::int64_t kind = type(i);
    if (content.empty() || (kind != kControl && kind != kUnknown && kind != kUserDefined)) return;
    AddedToken token;
    token.content = content;
    token.id = static_cast<std::int32_t>(i);
    token.special = kind != kUserDefined;
    parts_.added_tokens.push_back(std::move(token));
  }

  std::int32_t id(std::string_view key) const {
    const std::string name = concat("tokenizer.ggml.", key);
    if (!metadata_.has(name)) return kNoToken;
    const std::int64_t value = metadata_.get_i64(name);
    // -1 stands for "none" in some files.
    if (value < 0 || value >= 0xFFFF'FFFFLL) return kNoToken;
    if (value >= static_cast<std::int64_t>(tokens_->size()))
      fail(key, concat("id ", value, " is not below the ", tokens_->size(), " tokens"));
    return static_cast<std::int32_t>(value);
  }
  bool flag(std::string_view key, bool otherwise) const {
    return metadata_.get_bool(concat("tokenizer.ggml.", key), otherwise);
  }

  void read_special() {
    SpecialTokens& special = parts_.special;
    special.bos = id("bos_token_id");
    special.eos = id("eos_token_id");
    special.eot = id("eot_token_id");
    special.unk = id("unknown_token_id");
    special.pad = id("padding_token_id");
    special.cls = id("cls_token_id");
    special.sep = id("seperator_token_id");  // spelled like this in the format
    special.mask = id("mask_token_id");
  }
  /// bos text … eos, as far as the file wants them.
  void set_template(bool default_bos, bool default_eos) {
    using Kind = TemplatePiece::Kind;
    const bool bos = flag("add_bos_token", default_bos) && parts_.special.bos != kNoToken;
    const bool eos = flag("add_eos_token", default_eos) && parts_.special.eos != kNoToken;
    for (auto* pieces : {&parts_.encoding_template.single, &parts_.encoding_template.pair}) {
      if (bos) pieces->insert(pieces->begin(), {Kind::tokens, {parts_.special.bos}, 0});
      if (eos) pieces->push_back({Kind::tokens, {parts_.special.eos}, 0});
    }
  }
  std::vector<float> scores() const {
    std::vector<float> list = metadata_.get_floats("tokenizer.ggml.scores");
    if (list.size() != tokens_->size())
      fail("scores", concat("has ", list.size(), " entries for ", tokens_->size(), " tokens"));
    return list;
  }

  void read_bpe() {
    const std::string pre = metadata_.get_string("tokenizer.ggml.pre", "gpt-2");
    parts_.pre_tokenizer = guarded("pre", [&] { return gguf_pre_tokenizer(pre); });
    BpeOptions options;
    options.byte_level = true;
    // The tokenizers that these splits come from look whole words up first.
    options.ignore_merges = pre == "llama-bpe" || pre == "llama3" || pre == "llama-v3" ||
                            pre == "falcon3" || pre == "tekken";
    std::vector<std::pair<std::string, std::string>> merges;
    for (const std::string& merge : metadata_.get_strings("tokenizer.ggml.merges")) {
      const std::size_t blank = merge.find(' ', 1);
      if (blank == merge.npos)
        fail("merges", concat("entry ", merges.size(), " does not hold two tokens"));
      merges.emplace_back(merge.substr(0, blank), merge.substr(blank + 1));
    }
    guarded("merges", [&] { parts_.model.emplace(BpeModel(parts_.vocabulary, merges, options)); });
    parts_.decoder.steps.emplace_back(decoders::ByteLevel{});
    set_template(options.ignore_merges, false);
  }

  void read_sentence_piece_bpe() {
    static constexpr std::string_view kMark = "\xE2\x96\x81";
    const bool prefix = flag("add_space_prefix", true);
    if (prefix) parts_.normalizer.steps.emplace_back(normalizers::Prepend{" "});
    parts_.normalizer.steps.emplace_back(
        normalizers::Replace{std::string(" "), std::string(kMark)});
    const std::vector<float> score = scores();
    std::vector<ScoredPiece> pieces;
    for (std::size_t i = 0; i < tokens_->size(); ++i) {
      const std::int64_t kind = type(i);
      if (kind == kControl || kind == kUnknown || kind == kByte) continue;
      // User-defined tokens are cut out of the raw text before the model sees it.
      pieces.push_back({(*tokens_)[i], static_cast<std::int32_t>(i), score[i],
                        kind == kUnused ? PieceKind::unused : PieceKind::normal});
    }
    parts_.pre_tokenizer.steps.emplace_back(pre_tokenizers::MarkBoundaries([&](auto&& visit) {
      for (const ScoredPiece& piece : pieces) visit(piece.text);
    }));
    guarded("scores", [&] {
      parts_.model.emplace(
          SentencePieceBpeModel(parts_.vocabulary, pieces, {parts_.special.unk, true}));
    });
    add_mark_decoder(prefix);
    set_template(true, false);
  }

  void read_unigram() {
    SentencePieceNormalizer normalizer;
    normalizer.add_dummy_prefix = flag("add_space_prefix", true);
    normalizer.remove_extra_whitespaces = flag("remove_extra_whitespaces", true);
    const auto map = metadata_.find("tokenizer.ggml.precompiled_charsmap");
    if (map != nullptr) {
      std::string blob;
      for (const std::int64_t byte : metadata_.get_ints("tokenizer.ggml.precompiled_charsmap"))
        blob.push_back(static_cast<char>(byte));
      normalizer.map = guarded("precompiled_charsmap", [&] { return CharacterMap(blob); });
    }
    const bool prefix = normalizer.add_dummy_prefix;
    parts_.normalizer.steps.emplace_back(std::move(normalizer));
    const std::vector<float> score = scores();
    std::vector<UnigramPiece> pieces;
    for (std::size_t i = 0; i < tokens_->size(); ++i) {
      const std::int64_t kind = type(i);
      if (kind != kNormal && kind != kUserDefined) continue;
      pieces.push_back({(*tokens_)[i], static_cast<std::int32_t>(i), static_cast<double>(score[i]),
                        kind == kUserDefined});
    }
    guarded("scores", [&] {
      parts_.model.emplace(
          UnigramModel(parts_.vocabulary, pieces, {parts_.special.unk, false, true}));
    });
    add_mark_decoder(prefix);
    set_template(false, true);
  }

  void add_mark_decoder(bool prefix) {
    parts_.decoder.steps.emplace_back(
        decoders::Replace{{std::string("\xE2\x96\x81"), std::string(" ")}});
    parts_.decoder.steps.emplace_back(decoders::ByteFallback{});
    parts_.decoder.steps.emplace_back(decoders::Fuse{});
    if (prefix) parts_.decoder.steps.emplace_back(decoders::Strip{" ", 1, 0});
  }

  /// GGUF marks the beginnings of words instead of their continuations.
  static std::string word_piece(const std::string& token) {
    static constexpr std::string_view kMark = "\xE2\x96\x81";
    if (token.starts_with(kMark)) return token.substr(kMark.size());
    if (token.starts_with('[') && token.ends_with(']')) return token;
    return "##" + token;
  }
  void read_word_piece() {
    using Kind = TemplatePiece::Kind;
    SpecialTokens& special = parts_.special;
    if (special.cls == kNoToken) special.cls = special.bos;
    if (special.sep == kNoToken) special.sep = special.eos;
    if (special.cls == kNoToken || special.sep == kNoToken)
      fail("cls_token_id", "a BERT tokenizer needs cls and sep tokens");
    if (special.unk == kNoToken) special.unk = parts_.vocabulary.find("[UNK]");
    WordPieceOptions options;
    if (special.unk != kNoToken) options.unk_token = parts_.vocabulary.token(special.unk);
    parts_.normalizer.steps.emplace_back(normalizers::Bert{});
    parts_.pre_tokenizer.steps.emplace_back(pre_tokenizers::Bert{});
    guarded("tokens", [&] { parts_.model.emplace(WordPieceModel(parts_.vocabulary, options)); });
    parts_.decoder.steps.emplace_back(decoders::WordPiece{});
    EncodingTemplate& target = parts_.encoding_template;
    target.single = {
        {Kind::tokens, {special.cls}, 0}, {Kind::first, {}, 0}, {Kind::tokens, {special.sep}, 0}};
    target.pair = target.single;
    target.pair.push_back({Kind::second, {}, 1});
    target.pair.push_back({Kind::tokens, {special.sep}, 1});
  }

  const io::GgufMetadata& metadata_;
  std::string source_;
  const std::vector<std::string>* tokens_ = nullptr;
  std::vector<std::int64_t> types_;
  TokenizerParts parts_;
};

}  // namespace detail

GRAFT_IO PreTokenizer gguf_pre_tokenizer(std::string_view name) {
  namespace p = pre_tokenizers;
  const auto is = [&](std::initializer_list<std::string_view> names) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  const auto splits = [](std::initializer_list<std::string_view> patterns) {
    PreTokenizer steps;
    for (const std::string_view pattern : patterns)
      steps.steps.emplace_back(p::Split{Regex(pattern), SplitBehavior::isolated, false});
    return steps;
  };
  const auto then_gpt2 = [](PreTokenizer steps) {
    steps.steps.emplace_back(p::ByteLevel{});
    return steps;
  };
  if (is({"gpt-2", "gpt2", "phi-2", "jina-es", "jina-de", "roberta-bpe", "mpt", "olmo", "jais"}))
    return then_gpt2({});
  if (is({"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"}))
    return then_gpt2(PreTokenizer{{p::Digits{true}}});
  if (is({"llama-bpe", "llama3", "llama-v3", "falcon3", "dbrx", "smaug-bpe"})) {
    return splits(
        {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"});
  }
  if (is({"qwen2", "stablelm2", "deepseek-r1-qwen", "megrez"})) {
    return splits(
        {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"});
  }
  if (is({"tekken"})) {
    return splits(
        {R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)"});
  }
  if (is({"gpt-4o", "llama4"})) {
    return splits(
        {R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)"});
  }
  if (is({"falcon"})) {
    PreTokenizer steps{{p::Punctuation{SplitBehavior::contiguous}}};
    steps = then_gpt2(std::move(steps));
    steps.steps.emplace_back(p::Split{Regex("[0-9][0-9][0-9]"), SplitBehavior::isolated, false});
    return steps;
  }
  throw ValueError(concat(
      "pre-tokenizer '", name,
      "' is not known; known: gpt-2, phi-2, jina-es, jina-de, roberta-bpe, mpt, olmo, jais, "
      "smollm, "
      "starcoder, refact, command-r, codeshell, exaone, minerva-7b, llama-bpe, llama3, llama-v3, "
      "falcon3, dbrx, smaug-bpe, qwen2, stablelm2, deepseek-r1-qwen, megrez, tekken, gpt-4o, "
      "llama4, falcon"));
}

GRAFT_IO Tokenizer tokenizer_from_gguf(const io::GgufMetadata& metadata, std::string_view source) {
  return Tokenizer(detail::GgufTokenizerReader(metadata, source).read());
}

}  // namespace graft::inline v0_1::text
