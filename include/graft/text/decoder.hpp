#pragma once

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

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
  void operator()(Texts& texts) const {
    std::string bytes;
    for (const std::string& text : texts) {
      if (!ByteAlphabet::get().decode(text, bytes)) bytes.append(text);
    }
    texts.assign(1, replace_invalid_utf8(bytes));
  }
};

struct Replace {
  normalizers::Replace replace;
  void operator()(Texts& texts) const {
    for (std::string& text : texts) text = replace(text);
  }
};

/// Runs of byte tokens "<0xE2>" become the characters they spell, or one U+FFFD a byte.
struct ByteFallback {
  void operator()(Texts& texts) const {
    Texts out;
    std::string bytes;
    const auto flush = [&] {
      if (bytes.empty()) return;
      if (is_valid_utf8(bytes)) {
        out.push_back(bytes);
      } else {
        for (std::size_t i = 0; i < bytes.size(); ++i) out.emplace_back(kReplacementText);
      }
      bytes.clear();
    };
    for (std::string& text : texts) {
      if (const int byte = byte_of_token(text); byte >= 0) {
        bytes.push_back(static_cast<char>(byte));
        continue;
      }
      flush();
      out.push_back(std::move(text));
    }
    flush();
    texts.swap(out);
  }
};

struct Fuse {
  void operator()(Texts& texts) const {
    std::string joined;
    for (const std::string& text : texts) joined.append(text);
    texts.assign(1, std::move(joined));
  }
};

/// Drops up to `start` copies of a character from the left of each text, up to `stop` from its
/// right.
struct Strip {
  std::string content = " ";
  std::size_t start = 0;
  std::size_t stop = 0;
  void operator()(Texts& texts) const {
    for (std::string& text : texts) {
      std::string_view rest = text;
      for (std::size_t i = 0; i < start && rest.starts_with(content); ++i)
        rest.remove_prefix(content.size());
      for (std::size_t i = 0; i < stop && rest.ends_with(content); ++i)
        rest.remove_suffix(content.size());
      text = std::string(rest);
    }
  }
};

/// Blanks between words, none before a continuation; `cleanup` undoes the blanks that splitting put
/// before punctuation and English contractions.
struct WordPiece {
  std::string prefix = "##";
  bool cleanup = true;
  /// Takes back the blanks before punctuation and English contractions.
  static std::string cleaned(std::string text) {
    static constexpr std::pair<std::string_view, std::string_view> kUndo[] = {
        {" .", "."},   {" ?", "?"},     {" !", "!"},     {" ,", ","},
        {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},   {" do not", " don't"},
        {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
    };
    for (const auto& [from, to] : kUndo) text = replace_all(text, from, to);
    return text;
  }
  void operator()(Texts& texts) const {
    for (std::size_t i = 0; i < texts.size(); ++i) {
      std::string& text = texts[i];
      if (i > 0) {
        if (text.starts_with(prefix)) {
          text.erase(0, prefix.size());
        } else {
          text.insert(0, " ");
        }
      }
      if (cleanup) text = cleaned(text);
    }
  }
};

/// Blanks from their visible mark; the one that was put before the text goes.
struct Metaspace {
  std::string replacement = "\xE2\x96\x81";
  PrependScheme prepend_scheme = PrependScheme::always;
  void operator()(Texts& texts) const {
    for (std::size_t i = 0; i < texts.size(); ++i) {
      const bool first = i == 0 && prepend_scheme != PrependScheme::never;
      texts[i] = replace_all(texts[i], replacement, first ? "" : " ");
    }
  }
};

/// A suffix marks the ends of words.
struct Bpe {
  std::string suffix = "</w>";
  void operator()(Texts& texts) const {
    for (std::size_t i = 0; i < texts.size(); ++i)
      texts[i] = replace_all(texts[i], suffix, i + 1 < texts.size() ? " " : "");
  }
};

/// The best token of each frame of speech: repeats and blanks (`pad_token`) go, a token stands for
/// the gap between words.
struct Ctc {
  std::string pad_token = "<pad>";
  std::string word_delimiter_token = "|";
  bool cleanup = true;
  void operator()(Texts& texts) const {
    texts.erase(std::unique(texts.begin(), texts.end()), texts.end());
    Texts out;
    for (const std::string& token : texts) {
      std::string text = replace_all(token, pad_token, "");
      if (cleanup) text = replace_all(WordPiece::cleaned(text), word_delimiter_token, " ");
      if (!text.empty()) out.push_back(std::move(text));
    }
    texts.swap(out);
  }
};

}  // namespace decoders

using DecoderStep = std::variant<decoders::ByteLevel, decoders::Replace, decoders::ByteFallback,
                                 decoders::Fuse, decoders::Strip, decoders::WordPiece,
                                 decoders::Metaspace, decoders::Bpe, decoders::Ctc>;

/// Decoding steps, applied in order. With none, tokens are joined by blanks.
struct Decoder {
  std::vector<DecoderStep> steps;

  std::string operator()(std::vector<std::string> texts) const {
    for (const DecoderStep& step : steps)
      std::visit([&](const auto& decode) { decode(texts); }, step);
    std::string joined;
    for (std::size_t i = 0; i < texts.size(); ++i) {
      if (i > 0 && steps.empty()) joined.push_back(' ');
      joined.append(texts[i]);
    }
    return joined;
  }
};

}  // namespace graft::inline v0_1::text
