#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "graft/base/error.hpp"
#include "graft/io/utf8.hpp"
#include "graft/text/tokenizer.hpp"

namespace graft::inline v0_1::text {

/// The parts of a BERT tokenizer from its `vocab.txt`, one token a line, the line number is the id.
/// Special tokens are those with BERT's names: [PAD], [UNK], [CLS], [SEP], [MASK]. Without [UNK] a
/// text with a word that cannot be spelled is an error, as in transformers.
/// @param source  name of the file, for messages
/// Errors: IoError that names the file and the line, or [CLS] or [SEP] if it is missing.
/// Deviation: transformers gives special tokens that are missing ids behind the vocabulary.
inline TokenizerParts tokenizer_parts_from_vocab_txt(std::string_view text, std::string_view source,
                                                     normalizers::Bert normalizer = {}) {
  TokenizerParts parts;
  for (std::int32_t line = 0; !text.empty(); ++line) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    std::string_view token = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (token.ends_with('\r')) token.remove_suffix(1);
    if (!io::is_utf8(token) || token.size() > 1 << 14)
      throw IoError(concat(source, ":", line + 1, ": not a token in UTF-8"));
    try {
      parts.vocabulary.set(token, line);
    } catch (const ValueError& error) {
      throw IoError(concat(source, ":", line + 1, ": ", error.what()));
    }
  }
  const auto special = [&](std::string_view name, bool needed) {
    const std::int32_t id = parts.vocabulary.find(name);
    if (id == kNoToken && needed)
      throw IoError(concat(source, ": token '", name,
                           "' is missing, which begins or ends every text; an id of its own behind "
                           "the vocabulary would be one that the model does not know"));
    if (id != kNoToken) {
      AddedToken token;
      token.content = name;
      token.id = id;
      token.special = true;
      parts.added_tokens.push_back(std::move(token));
    }
    return id;
  };
  parts.special.pad = special("[PAD]", false);
  parts.special.unk = special("[UNK]", false);
  parts.special.cls = special("[CLS]", true);
  parts.special.sep = special("[SEP]", true);
  parts.special.mask = special("[MASK]", false);
  parts.normalizer.steps.emplace_back(normalizer);
  parts.pre_tokenizer.steps.emplace_back(pre_tokenizers::Bert{});
  parts.model.emplace(WordPieceModel(parts.vocabulary, {}));
  parts.decoder.steps.emplace_back(decoders::WordPiece{});
  using Kind = TemplatePiece::Kind;
  EncodingTemplate& target = parts.encoding_template;
  target.single = {{Kind::tokens, {parts.special.cls}, 0},
                   {Kind::first, {}, 0},
                   {Kind::tokens, {parts.special.sep}, 0}};
  target.pair = target.single;
  target.pair.push_back({Kind::second, {}, 1});
  target.pair.push_back({Kind::tokens, {parts.special.sep}, 1});
  return parts;
}

}  // namespace graft::inline v0_1::text
