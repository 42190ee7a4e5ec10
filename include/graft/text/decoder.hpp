#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "graft/config.hpp"
#include "graft/text/normalizer.hpp"
#include "graft/text/pre_tokenizer.hpp"
#include "graft/text/unicode.hpp"
#include "graft/text/vocabulary.hpp"

namespace graft::inline v0_1::text {

/// Steps from tokens back to text, by the names of `tokenizer.json`. Each maps a list of texts, one
/// a token at first, to such a list; the results are joined at the end.
namespace decoders {

using Texts = std::vector<std::string>;

/// Bytes from their printable form; a token with other characters stands for its own bytes.
struct ByteLevel {
  void operator()(Texts& texts) const;
};

struct Replace {
  normalizers::Replace replace;
  void operator()(Texts& texts) const;
};

/// Runs of byte tokens "<0xE2>" become the characters they spell, or one U+FFFD a byte.
struct ByteFallback {
  void operator()(Texts& texts) const;
};

struct Fuse {
  void operator()(Texts& texts) const;
};

/// Drops up to `start` copies of a character from the left of each text, up to `stop` from its
/// right.
struct Strip {
  std::string content = " ";
  std::size_t start = 0;
  std::size_t stop = 0;
  void operator()(Texts& texts) const;
};

/// Blanks between words, none before a continuation; `cleanup` undoes the blanks that splitting put
/// before punctuation and English contractions.
struct WordPiece {
  std::string prefix = "##";
  bool cleanup = true;
  /// Takes back the blanks before punctuation and English contractions.
  static std::string cleaned(std::string text);
  void operator()(Texts& texts) const;
};

/// Blanks from their visible mark; the one that was put before the text goes.
struct Metaspace {
  std::string replacement = "\xE2\x96\x81";
  PrependScheme prepend_scheme = PrependScheme::always;
  void operator()(Texts& texts) const;
};

/// A suffix marks the ends of words.
struct Bpe {
  std::string suffix = "</w>";
  void operator()(Texts& texts) const;
};

/// The best token of each frame of speech: repeats and blanks (`pad_token`) go, a token stands for
/// the gap between words.
struct Ctc {
  std::string pad_token = "<pad>";
  std::string word_delimiter_token = "|";
  bool cleanup = true;
  void operator()(Texts& texts) const;
};

}  // namespace decoders

using DecoderStep = std::variant<decoders::ByteLevel, decoders::Replace, decoders::ByteFallback,
                                 decoders::Fuse, decoders::Strip, decoders::WordPiece,
                                 decoders::Metaspace, decoders::Bpe, decoders::Ctc>;

/// Decoding steps, applied in order. With none, tokens are joined by blanks.
struct Decoder {
  std::vector<DecoderStep> steps;

  std::string operator()(std::vector<std::string> texts) const;
};

}  // namespace graft::inline v0_1::text

#if !defined(GRAFT_FILES_COMPILED)
#include "graft/text/impl/decoder_impl.hpp"
#endif
