#pragma once

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <optional>
#include <utility>
#include <vector>

#include "graft/base/error.hpp"
#include "graft/base/types.hpp"
#include "graft/io/json.hpp"
#include "graft/text/tokenizer_json.hpp"

namespace graft::inline v0_1::text {

namespace detail {

/// Reads the parts of a `tokenizer.json`. Every complaint names the file and the field.
class TokenizerJsonReader {
 public:
  explicit TokenizerJsonReader(const io::JsonView& root) : root_(root) {}

  TokenizerParts read() {
    if (const auto view = root_.find("normalizer")) add_normalizer(*view, parts_.normalizer);
    if (const auto view = root_.find("pre_tokenizer")) add_pre_tokenizer(*view);
    end_byte_level();
    read_vocabulary(root_.at("model"));
    read_model(root_.at("model"));  // before the added tokens: it must not know them
    read_added_tokens();
    if (const auto view = root_.find("post_processor")) add_post_processor(*view);
    if (const auto view = root_.find("decoder")) add_decoder(*view);
    return std::move(parts_);
  }

 private:
  using View = io::JsonView;
  static constexpr std::size_t kMaxToken = 1 << 14;  // bytes; no real vocabulary comes near

  /// Runs a constructor and turns its ValueError into an IoError that names the field.
  template <class Make>
  static auto guarded(const View& view, Make&& make) {
    try {
      return make();
    } catch (const ValueError& error) {
      view.fail(error.what());
    }
  }
  [[noreturn]] static void unknown(const View& view, std::string_view kind,
                                   std::string_view supported) {
    view.fail(
        concat(kind, " '", view.at("type").string(), "' is not supported; supported: ", supported));
  }
  static const std::string& limited(const View& view) {
    const std::string& token = view.string();
    if (token.size() > kMaxToken) view.fail(concat("a token of ", token.size(), " bytes"));
    return token;
  }

  static Pattern pattern(const View& view) {
    if (const auto literal = view.find("String")) return literal->string();
    const View regex = view.at("Regex");
    return guarded(regex, [&] { return Pattern(Regex(regex.string())); });
  }
  static SplitBehavior behavior(const View& view) {
    const std::string& name = view.string();
    if (name == "Removed") return SplitBehavior::removed;
    if (name == "Isolated") return SplitBehavior::isolated;
    if (name == "MergedWithPrevious") return SplitBehavior::merged_with_previous;
    if (name == "MergedWithNext") return SplitBehavior::merged_with_next;
    if (name == "Contiguous") return SplitBehavior::contiguous;
    view.fail(concat("unknown behavior '", name, "'"));
  }
  static PrependScheme prepend_scheme(const View& view) {
    const auto scheme = view.find("prepend_scheme");
    if (!scheme) {
      return view.boolean_or("add_prefix_space", true) ? PrependScheme::always
                                                       : PrependScheme::never;
    }
    const std::string& name = scheme->string();
    if (name == "always") return PrependScheme::always;
    if (name == "first") return PrependScheme::first;
    if (name == "never") return PrependScheme::never;
    scheme->fail(concat("unknown scheme '", name, "'"));
  }

  static void add_normalizer(const View& view, Normalizer& normalizer) {
    namespace n = normalizers;
    const std::string& type = view.at("type").string();
    const auto add = [&](auto step) { normalizer.steps.emplace_back(std::move(step)); };
    if (type == "Sequence") {
      for (const View& step : view.at("normalizers").elements()) add_normalizer(step, normalizer);
    } else if (type == "BertNormalizer") {
      n::Bert bert;
      bert.clean_text = view.boolean_or("clean_text", true);
      bert.handle_chinese_chars = view.boolean_or("handle_chinese_chars", true);
      if (const auto strip = view.find("strip_accents")) bert.strip_accents = strip->boolean();
      bert.lowercase = view.boolean_or("lowercase", true);
      add(bert);
    } else if (type == "NFC") {
      add(n::Unicode{NormalizationForm::nfc});
    } else if (type == "NFD") {
      add(n::Unicode{NormalizationForm::nfd});
    } else if (type == "NFKC") {
      add(n::Unicode{NormalizationForm::nfkc});
    } else if (type == "NFKD") {
      add(n::Unicode{NormalizationForm::nfkd});
    } else if (type == "Lowercase") {
      add(n::Lowercase{});
    } else if (type == "StripAccents") {
      add(n::StripAccents{});
    } else if (type == "Strip") {
      add(n::Strip{view.boolean_or("strip_left", true), view.boolean_or("strip_right", true)});
    } else if (type == "Replace") {
      add(n::Replace{pattern(view.at("pattern")), view.at("content").string()});
    } else if (type == "Prepend") {
      add(n::Prepend{view.at("prepend").string()});
    } else if (type == "Precompiled") {
      if (const auto map = view.find("precompiled_charsmap")) {
        add(guarded(*map,
                    [&] { return n::Precompiled{CharacterMap(from_base64(map->string()))}; }));
      }
    } else if (type == "ByteLevel") {
      add(n::ByteLevel{});
    } else if (type == "Nmt") {
      add(n::Nmt{});
    } else {
      unknown(view, "normalizer",
              "Sequence, BertNormalizer, NFC, NFD, NFKC, NFKD, Lowercase, StripAccents, Strip, "
              "Replace, Prepend, Precompiled, ByteLevel, Nmt");
    }
  }

  void add_pre_tokenizer(const View& view) {
    namespace p = pre_tokenizers;
    const std::string& type = view.at("type").string();
    const auto add = [&](auto step) {
      // The bytes of an earlier ByteLevel have to be spelled out for whatever comes after it.
      if (byte_level_) parts_.pre_tokenizer.steps.emplace_back(p::SpellBytes{});
      byte_level_ = false;
      parts_.pre_tokenizer.steps.emplace_back(std::move(step));
    };
    if (type == "Sequence") {
      for (const View& step : view.at("pretokenizers").elements()) add_pre_tokenizer(step);
    } else if (type == "ByteLevel") {
      add(p::ByteLevel{view.boolean_or("add_prefix_space", true),
                       view.boolean_or("use_regex", true)});
      byte_level_ = true;
    } else if (type == "Split") {
      add(p::Split{pattern(view.at("pattern")), behavior(view.at("behavior")),
                   view.boolean_or("invert", false)});
    } else if (type == "Digits") {
      add(p::Digits{view.boolean_or("individual_digits", false)});
    } else if (type == "Punctuation") {
      const auto how = view.find("behavior");
      add(p::Punctuation{how ? behavior(*how) : SplitBehavior::isolated});
    } else if (type == "BertPreTokenizer") {
      add(p::Bert{});
    } else if (type == "Whitespace") {
      add(p::Whitespace{});
    } else if (type == "WhitespaceSplit") {
      add(p::WhitespaceSplit{});
    } else if (type == "CharDelimiterSplit") {
      const View delimiter = view.at("delimiter");
      const std::string& text = delimiter.string();
      if (count_code_points(text) != 1) delimiter.fail("expected one character");
      add(p::CharDelimiterSplit{decode_utf8(text, 0).value});
    } else if (type == "Metaspace") {
      const View replacement = view.at("replacement");
      if (replacement.string().empty()) replacement.fail("expected one character");
      add(p::Metaspace{replacement.string(), prepend_scheme(view), view.boolean_or("split", true)});
    } else if (type == "UnicodeScripts") {
      add(p::UnicodeScripts{});
    } else if (type == "FixedLength") {
      add(p::FixedLength{static_cast<std::size_t>(view.integer_or("length", 5, 1, 1 << 20))});
    } else {
      unknown(view, "pre-tokenizer",
              "Sequence, ByteLevel, Split, Digits, Punctuation, BertPreTokenizer, Whitespace, "
              "WhitespaceSplit, CharDelimiterSplit, Metaspace, FixedLength, UnicodeScripts");
    }
  }

  /// A BPE model takes the bytes of a last ByteLevel as they are; others need them spelled out.
  void end_byte_level() {
    if (!byte_level_ || model_type(root_.at("model")) == "BPE") return;
    parts_.pre_tokenizer.steps.emplace_back(pre_tokenizers::SpellBytes{});
    byte_level_ = false;
  }

  /// Old files do not name the model's type.
  static std::string model_type(const View& view) {
    if (const auto type = view.find("type")) return type->string();
    if (view.has("merges")) return "BPE";
    if (view.has("max_input_chars_per_word")) return "WordPiece";
    if (view.has("unk_id")) return "Unigram";
    // The rest of a WordPiece model's fields; it has more, so this comes last.
    const auto vocabulary = view.find("vocab");
    if (vocabulary && vocabulary->is_object() && view.has("unk_token")) return "WordLevel";
    view.fail("key 'type' is missing");
  }

  /// A score as the tokenizers library reads it: digits as a whole number, then one division by (or
  /// product with) a power of ten, so up to one unit in the last place off. Where cuts of a text
  /// have equal sums (long runs of one character), this decides which of them wins.
  ///
  /// Limits: the digits are the shortest that name the nearest double, as common writers give them;
  /// of other digits the library may make another double. And beyond the power 22, the last that is
  /// exact, the nearest double stays while the library still divides: a score below 1e-6 with 17
  /// digits (or a smaller one with fewer) may differ in the last place.
  static double score_as_written(double score) {
    char text[32];
    const auto end = std::to_chars(text, text + sizeof text, score, std::chars_format::scientific);
    const std::string_view number(text, static_cast<std::size_t>(end.ptr - text));
    const auto e = number.find('e');
    if (e == number.npos) return score;
    std::uint64_t digits = 0;
    int exponent = std::atoi(std::string(number.substr(e + 1)).c_str());
    bool fraction = false;
    for (const char c : number.substr(0, e)) {
      if (c == '.') fraction = true;
      if (c < '0' || c > '9') continue;
      digits = 10 * digits + static_cast<std::uint64_t>(c - '0');
      if (fraction) --exponent;
    }
    if (exponent < -22 || exponent > 22) return score;  // powers of ten are exact up to here
    const double power = std::pow(10.0, std::abs(exponent)), whole = static_cast<double>(digits);
    const double value = exponent < 0 ? whole / power : whole * power;
    return score < 0 ? -value : value;
  }

  void read_vocabulary(const View& model) {
    const View vocabulary = model.at("vocab");
    if (vocabulary.is_array()) {  // Unigram: pairs of token and score, the place is the id
      for (const View& entry : vocabulary.elements()) {
        const auto pair = entry.elements();
        if (pair.size() != 2) entry.fail("expected a token and a score");
        const auto id = static_cast<std::int32_t>(pieces_.size());
        const std::string& token = limited(pair[0]);
        pieces_.push_back({token, id, score_as_written(pair[1].number()), false});
        guarded(entry, [&] { parts_.vocabulary.set(token, id); });
      }
      return;
    }
    for (const auto& [token, id] : vocabulary.members()) {
      if (token.size() > kMaxToken) vocabulary.fail(concat("a token of ", token.size(), " bytes"));
      pending_.emplace_back(static_cast<std::int32_t>(id.integer(0, 1 << 24)), token);
    }
    std::sort(pending_.begin(), pending_.end());
    guarded(vocabulary, [&] {
      for (const auto& [id, token] : pending_) parts_.vocabulary.add(token, id);
    });
  }

  void read_added_tokens() {
    const auto list = root_.find("added_tokens");
    if (!list) return;
    for (const View& view : list->elements()) {
      AddedToken token;
      token.content = limited(view.at("content"));
      token.special = view.boolean_or("special", false);
      token.single_word = view.boolean_or("single_word", false);
      token.lstrip = view.boolean_or("lstrip", false);
      token.rstrip = view.boolean_or("rstrip", false);
      token.normalized = view.boolean_or("normalized", !token.special);
      token.id = parts_.vocabulary.find(token.content);
      if (token.id == kNoToken) {
        token.id = static_cast<std::int32_t>(view.at("id").integer(0, 1 << 24));
        guarded(view, [&] { parts_.vocabulary.add(token.content, token.id); });
      }
      parts_.added_tokens.push_back(std::move(token));
    }
  }

  void read_model(const View& view) {
    const std::string type = model_type(view);
    if (type == "BPE") {
      read_bpe(view);
    } else if (type == "WordPiece") {
      WordPieceOptions options;
      options.unk_token = view.string_or("unk_token", "[UNK]");
      options.continuing_subword_prefix = view.string_or("continuing_subword_prefix", "##");
      options.max_input_chars_per_word =
          static_cast<std::size_t>(view.integer_or("max_input_chars_per_word", 100, 1, 1 << 20));
      guarded(view, [&] { parts_.model.emplace(WordPieceModel(parts_.vocabulary, options)); });
      parts_.special.unk = parts_.vocabulary.find(options.unk_token);
    } else if (type == "WordLevel") {
      const std::string unk = view.string_or("unk_token", "<unk>");
      parts_.model.emplace(WordLevelModel(parts_.vocabulary, unk));
      parts_.special.unk = parts_.vocabulary.find(unk);
    } else if (type == "Unigram") {
      if (pieces_.empty()) view.at("vocab").fail("expected a list of tokens and scores");
      UnigramOptions options;
      options.unk_id = static_cast<std::int32_t>(
          view.integer_or("unk_id", kNoToken, 0, static_cast<std::int64_t>(pieces_.size()) - 1));
      options.byte_fallback = view.boolean_or("byte_fallback", false);
      guarded(view,
              [&] { parts_.model.emplace(UnigramModel(parts_.vocabulary, pieces_, options)); });
      parts_.special.unk = options.unk_id;
    } else {
      view.fail(concat("model '", type,
                       "' is not supported; supported: BPE, WordPiece, WordLevel, Unigram"));
    }
  }

  void read_bpe(const View& view) {
    if (const auto dropout = view.find("dropout"); dropout && dropout->number() != 0)
      dropout->fail("dropout of merges is not supported");
    BpeOptions options;
    if (const auto unk = view.find("unk_token")) options.unk_token = unk->string();
    options.continuing_subword_prefix = view.string_or("continuing_subword_prefix", "");
    options.end_of_word_suffix = view.string_or("end_of_word_suffix", "");
    options.fuse_unk = view.boolean_or("fuse_unk", false);
    options.byte_fallback = view.boolean_or("byte_fallback", false);
    options.ignore_merges = view.boolean_or("ignore_merges", false);
    options.byte_level = byte_level_;
    if (options.unk_token) parts_.special.unk = parts_.vocabulary.find(*options.unk_token);
    std::vector<std::pair<std::string, std::string>> merges;
    const View list = view.at("merges");
    merges.reserve(list.json().size());
    for (const View& merge : list.elements()) {
      if (merge.is_array()) {
        const auto pair = merge.strings();
        if (pair.size() != 2) merge.fail("expected two tokens");
        merges.emplace_back(pair[0], pair[1]);
        continue;
      }
      const std::string& text = merge.string();
      const std::size_t blank = text.find(' ');
      if (blank == text.npos || text.find(' ', blank + 1) != text.npos)
        merge.fail("expected two tokens with one blank between them");
      merges.emplace_back(text.substr(0, blank), text.substr(blank + 1));
    }
    // Without a splitting step, whole texts are single pieces: cut them where no merge reaches.
    if (parts_.pre_tokenizer.steps.empty()) {
      const std::size_t prefix = options.continuing_subword_prefix.size();
      if (prefix == 0 && options.end_of_word_suffix.empty() && !options.ignore_merges) {
        parts_.pre_tokenizer.steps.emplace_back(pre_tokenizers::MarkBoundaries([&](auto&& visit) {
          for (const auto& [left, right] : merges) visit(left + right);
        }));
      }
    }
    guarded(view, [&] { parts_.model.emplace(BpeModel(parts_.vocabulary, merges, options)); });
  }

  void add_post_processor(const View& view) {
    const std::string& type = view.at("type").string();
    if (type == "Sequence") {
      for (const View& step : view.at("processors").elements()) add_post_processor(step);
      return;
    }
    if (type == "ByteLevel") return;  // trims offsets only
    if (has_template_) view.fail("two processors that add tokens are not supported");
    has_template_ = true;
    EncodingTemplate& target = parts_.encoding_template;
    if (type == "TemplateProcessing") {
      target.single = template_pieces(view, "single");
      if (view.has("pair")) target.pair = template_pieces(view, "pair");
    } else if (type == "BertProcessing" || type == "RobertaProcessing") {
      const bool roberta = type == "RobertaProcessing";
      const std::int32_t cls = token_and_id(view.at("cls")), sep = token_and_id(view.at("sep"));
      using Kind = TemplatePiece::Kind;
      const std::int32_t second = roberta ? 0 : 1;
      target.single = {{Kind::tokens, {cls}, 0}, {Kind::first, {}, 0}, {Kind::tokens, {sep}, 0}};
      target.pair = target.single;
      if (roberta) target.pair.push_back({Kind::tokens, {sep}, 0});
      target.pair.push_back({Kind::second, {}, second});
      target.pair.push_back({Kind::tokens, {sep}, second});
    } else {
      unknown(view, "post-processor",
              "Sequence, ByteLevel, TemplateProcessing, BertProcessing, RobertaProcessing");
    }
  }
  std::int32_t token_and_id(const View& view) const {
    const auto pair = view.elements();
    if (pair.size() != 2) view.fail("expected a token and its id");
    return checked_id(pair[1]);
  }
  std::int32_t checked_id(const View& view) const {
    const auto id = static_cast<std::int32_t>(view.integer(0, 1 << 24));
    if (!parts_.vocabulary.contains(id)) view.fail(concat("no token has the id ", id));
    return id;
  }
  std::vector<TemplatePiece> template_pieces(const View& view, std::string_view key) const {
    std::vector<TemplatePiece> pieces;
    const View list = view.at(key);
    for (const View& element : list.elements()) {
      TemplatePiece piece;
      if (const auto sequence = element.find("Sequence")) {
        const View id = sequence->at("id");
        if (id.string() != "A" && id.string() != "B") id.fail("expected A or B");
        piece.kind = id.string() == "A" ? TemplatePiece::Kind::first : TemplatePiece::Kind::second;
        piece.type_id = static_cast<std::int32_t>(sequence->integer_or("type_id", 0, 0, 255));
      } else {
        const View special = element.at("SpecialToken");
        const std::string& name = special.at("id").string();
        piece.type_id = static_cast<std::int32_t>(special.integer_or("type_id", 0, 0, 255));
        for (const View& id : view.at("special_tokens").at(name).at("ids").elements())
          piece.ids.push_back(checked_id(id));
      }
      pieces.push_back(std::move(piece));
    }
    return pieces;
  }

  void add_decoder(const View& view) {
    namespace d = decoders;
    const std::string& type = view.at("type").string();
    const auto add = [&](auto step) { parts_.decoder.steps.emplace_back(std::move(step)); };
    if (type == "Sequence") {
      for (const View& step : view.at("decoders").elements()) add_decoder(step);
    } else if (type == "ByteLevel") {
      add(d::ByteLevel{});
    } else if (type == "Replace") {
      add(d::Replace{{pattern(view.at("pattern")), view.at("content").string()}});
    } else if (type == "ByteFallback") {
      add(d::ByteFallback{});
    } else if (type == "Fuse") {
      add(d::Fuse{});
    } else if (type == "Strip") {
      const View content = view.at("content");
      if (content.string().empty()) content.fail("expected one character");
      add(d::Strip{content.string(),
                   static_cast<std::size_t>(view.integer_or("start", 0, 0, 1 << 20)),
                   static_cast<std::size_t>(view.integer_or("stop", 0, 0, 1 << 20))});
    } else if (type == "WordPiece") {
      add(d::WordPiece{view.string_or("prefix", "##"), view.boolean_or("cleanup", true)});
    } else if (type == "Metaspace") {
      const View replacement = view.at("replacement");
      if (replacement.string().empty()) replacement.fail("expected one character");
      add(d::Metaspace{replacement.string(), prepend_scheme(view)});
    } else if (type == "BPEDecoder") {
      add(d::Bpe{view.string_or("suffix", "</w>")});
    } else if (type == "CTC") {
      add(d::Ctc{view.string_or("pad_token", "<pad>"), view.string_or("word_delimiter_token", "|"),
                 view.boolean_or("cleanup", true)});
    } else {
      unknown(view, "decoder",
              "Sequence, ByteLevel, Replace, ByteFallback, Fuse, Strip, WordPiece, Metaspace, "
              "BPEDecoder, CTC");
    }
  }

  static std::string from_base64(std::string_view text) {
    std::string bytes;
    std::uint32_t bits = 0;
    int count = 0;
    for (const char c : text) {
      if (c == '=') break;
      const int value = c >= 'A' && c <= 'Z'   ? c - 'A'
                        : c >= 'a' && c <= 'z' ? c - 'a' + 26
                        : c >= '0' && c <= '9' ? c - '0' + 52
                        : c == '+'             ? 62
                        : c == '/'             ? 63
                                               : -1;
      if (value < 0) throw ValueError("not base64");
      bits = (bits << 6) | static_cast<std::uint32_t>(value);
      count += 6;
      if (count >= 8) bytes.push_back(static_cast<char>((bits >> (count -= 8)) & 0xFFU));
    }
    return bytes;
  }

  const View& root_;
  TokenizerParts parts_;
  std::vector<UnigramPiece> pieces_;
  std::vector<std::pair<std::int32_t, std::string>> pending_;
  bool byte_level_ = false;
  bool has_template_ = false;
};

}  // namespace detail

GRAFT_IO TokenizerParts tokenizer_parts_from_json(std::string_view json, std::string_view source) {
  // Duplicated keys: the last one wins, as for every other reader of these files.
  const io::Json document = io::parse_json(json, source, {.allow_duplicates = true});
  const io::JsonView root(document, source);
  return detail::TokenizerJsonReader(root).read();
}

GRAFT_IO Tokenizer tokenizer_from_json(std::string_view json, std::string_view source) {
  return Tokenizer(tokenizer_parts_from_json(json, source));
}

}  // namespace graft::inline v0_1::text
