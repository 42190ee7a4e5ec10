#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graft/base/error.hpp"
#include "graft/base/types.hpp"
#include "graft/io/utf8.hpp"
#include "graft/text/tokenizer.hpp"

namespace graft::inline v0_1::text {

/// What a SentencePiece `.model` leaves to its user.
struct SentencePieceOptions {
  bool add_bos = false;
  bool add_eos = false;
};

namespace detail {

/// Fields of a protocol buffer message, checked against the end of the message.
class ProtoReader {
 public:
  ProtoReader(std::string_view bytes, std::string_view source) : rest_(bytes), source_(source) {}

  struct Field {
    std::uint64_t number = 0;
    std::uint64_t value = 0;  ///< of a varint or fixed field
    std::string_view bytes;   ///< of a length-delimited field
    int wire = 0;
  };

  std::optional<Field> next() {
    if (rest_.empty()) return std::nullopt;
    const std::uint64_t key = varint();
    Field field;
    field.number = key >> 3;
    field.wire = static_cast<int>(key & 7U);
    switch (field.wire) {
      case 0:
        field.value = varint();
        break;
      case 1:
        field.value = fixed(8);
        break;
      case 2:
        field.bytes = take(varint());
        break;
      case 5:
        field.value = fixed(4);
        break;
      default:
        fail(concat("wire type ", field.wire));
    }
    return field;
  }

  [[noreturn]] void fail(std::string_view reason) const {
    throw IoError(concat(source_, ": not a SentencePiece model: ", reason));
  }

 private:
  std::string_view take(std::uint64_t count) {
    if (count > rest_.size()) fail("a field reaches beyond its end");
    const std::string_view bytes = rest_.substr(0, static_cast<std::size_t>(count));
    rest_.remove_prefix(bytes.size());
    return bytes;
  }
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const auto byte = static_cast<unsigned char>(take(1)[0]);
      value |= static_cast<std::uint64_t>(byte & 0x7FU) << shift;
      if (byte < 0x80) return value;
    }
    fail("a number of more than 64 bits");
  }
  std::uint64_t fixed(std::size_t count) {
    std::uint64_t value = 0;
    std::memcpy(&value, take(count).data(), count);  // little endian, like the format
    return value;
  }

  std::string_view rest_;
  std::string source_;
};

}  // namespace detail

/// The parts of a SentencePiece `.model` file (Unigram or BPE). Ids are the places of its pieces.
///
/// Control pieces in the text are control tokens with `EncodeOptions::parse_special`; SentencePiece
/// itself never takes them for such, which is what happens without it.
/// @param source  name of the file, for messages
/// Errors: IoError that names the file.
inline TokenizerParts tokenizer_parts_from_sentence_piece(std::string_view bytes,
                                                          std::string_view source,
                                                          SentencePieceOptions options = {}) {
  enum Type { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };
  struct Entry {
    std::string text;
    float score = 0;
    std::uint64_t type = kNormal;
  };
  std::vector<Entry> entries;
  std::uint64_t model_type = 1;  // Unigram
  bool byte_fallback = false;
  std::string map;
  SentencePieceNormalizer normalizer;
  std::uint64_t bos = 1, eos = 2, pad = std::uint64_t(-1);  // the format's defaults; -1: none

  detail::ProtoReader model(bytes, source);
  while (const auto field = model.next()) {
    detail::ProtoReader inner(field->bytes, source);
    if (field->number == 1 && field->wire == 2) {
      Entry entry;
      while (const auto item = inner.next()) {
        if (item->number == 1 && item->wire == 2) entry.text = item->bytes;
        if (item->number == 2 && item->wire == 5) {
          const auto bits = static_cast<std::uint32_t>(item->value);
          std::memcpy(&entry.score, &bits, sizeof bits);
        }
        if (item->number == 3 && item->wire == 0) entry.type = item->value;
      }
      if (!io::is_utf8(entry.text) || entry.text.size() > 1 << 14)
        model.fail(concat("piece ", entries.size(), " is not a token"));
      entries.push_back(std::move(entry));
    } else if (field->number == 2 && field->wire == 2) {  // trainer
      while (const auto item = inner.next()) {
        if (item->wire != 0) continue;
        if (item->number == 3) model_type = item->value;
        if (item->number == 35) byte_fallback = item->value != 0;
        if (item->number == 41) bos = item->value;
        if (item->number == 42) eos = item->value;
        if (item->number == 43) pad = item->value;
      }
    } else if (field->number == 3 && field->wire == 2) {  // normaliser
      while (const auto item = inner.next()) {
        if (item->number == 2 && item->wire == 2) map = item->bytes;
        if (item->wire != 0) continue;
        if (item->number == 3) normalizer.add_dummy_prefix = item->value != 0;
        if (item->number == 4) normalizer.remove_extra_whitespaces = item->value != 0;
        if (item->number == 5) normalizer.escape_whitespaces = item->value != 0;
      }
    }
  }
  if (entries.empty()) model.fail("it has no pieces");

  TokenizerParts parts;
  try {
    normalizer.map = CharacterMap(map);
    auto user_defined = std::make_shared<ByteTrie>();
    for (std::size_t i = 0; i < entries.size(); ++i) {
      const auto id = static_cast<std::int32_t>(i);
      const Entry& entry = entries[i];
      parts.vocabulary.set(entry.text, id);
      if (entry.type == kUnknown && parts.special.unk == kNoToken) parts.special.unk = id;
      if (entry.type == kUserDefined) user_defined->insert(entry.text, id);
      if (entry.type == kControl || entry.type == kUnknown) {
        AddedToken token;
        token.content = entry.text;
        token.id = id;
        token.special = true;
        parts.added_tokens.push_back(std::move(token));
      }
    }
    const auto control = [&](std::uint64_t place) {
      const bool known = place < entries.size() && entries[place].type == kControl;
      return known ? static_cast<std::int32_t>(place) : kNoToken;
    };
    parts.special.bos = control(bos);
    parts.special.eos = control(eos);
    parts.special.pad = control(pad);
    if (!user_defined->empty()) {
      normalizer.user_defined = [user_defined](std::string_view text) {
        return user_defined->longest_prefix(text, 0).first;
      };
    }
    // Decoding drops the dummy prefix, or every blank at the beginning if none can be real.
    const std::size_t leading = normalizer.remove_extra_whitespaces ? std::size_t(-1)
                                : normalizer.add_dummy_prefix       ? 1
                                                                    : 0;
    parts.normalizer.steps.emplace_back(std::move(normalizer));

    if (model_type == 1) {
      std::vector<UnigramPiece> pieces;
      for (std::size_t i = 0; i < entries.size(); ++i) {
        const auto type = entries[i].type;
        if (type != kNormal && type != kUserDefined) continue;
        pieces.push_back({entries[i].text, static_cast<std::int32_t>(i),
                          static_cast<double>(entries[i].score), type == kUserDefined});
      }
      parts.model.emplace(
          UnigramModel(parts.vocabulary, pieces, {parts.special.unk, byte_fallback, true}));
    } else if (model_type == 2) {
      std::vector<ScoredPiece> pieces;
      for (std::size_t i = 0; i < entries.size(); ++i) {
        const auto type = entries[i].type;
        if (type != kNormal && type != kUserDefined && type != kUnused) continue;
        pieces.push_back({entries[i].text, static_cast<std::int32_t>(i), entries[i].score,
                          type == kUserDefined ? PieceKind::user_defined
                          : type == kUnused    ? PieceKind::unused
                                               : PieceKind::normal});
      }
      parts.pre_tokenizer.steps.emplace_back(pre_tokenizers::MarkBoundaries([&](auto&& visit) {
        for (const ScoredPiece& piece : pieces) visit(piece.text);
      }));
      parts.model.emplace(
          SentencePieceBpeModel(parts.vocabulary, pieces, {parts.special.unk, byte_fallback}));
    } else {
      model.fail(concat("model type ", model_type, "; supported: 1 (Unigram), 2 (BPE)"));
    }

    parts.decoder.steps.emplace_back(
        decoders::Replace{{std::string("\xE2\x96\x81"), std::string(" ")}});
    parts.decoder.steps.emplace_back(decoders::ByteFallback{});
    parts.decoder.steps.emplace_back(decoders::Fuse{});
    parts.decoder.steps.emplace_back(decoders::Strip{" ", leading, 0});
  } catch (const ValueError& error) {
    throw IoError(concat(source, ": ", error.what()));
  }
  using Kind = TemplatePiece::Kind;
  for (auto* pieces : {&parts.encoding_template.single, &parts.encoding_template.pair}) {
    if (options.add_bos && parts.special.bos != kNoToken)
      pieces->insert(pieces->begin(), {Kind::tokens, {parts.special.bos}, 0});
    if (options.add_eos && parts.special.eos != kNoToken)
      pieces->push_back({Kind::tokens, {parts.special.eos}, 0});
  }
  return parts;
}

/// The tokenizer in a SentencePiece `.model` file. Errors: IoError that names the file.
inline Tokenizer tokenizer_from_sentence_piece(std::string_view bytes, std::string_view source,
                                               SentencePieceOptions options = {}) {
  return Tokenizer(tokenizer_parts_from_sentence_piece(bytes, source, options));
}

}  // namespace graft::inline v0_1::text
