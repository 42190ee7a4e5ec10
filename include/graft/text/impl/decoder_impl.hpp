#pragma once

#include <algorithm>

#include "graft/text/decoder.hpp"

namespace graft::inline v0_1::text {

GRAFT_IO void decoders::ByteLevel::operator()(Texts& texts) const {
  std::string bytes;
  for (const std::string& text : texts) {
    if (!ByteAlphabet::get().decode(text, bytes)) bytes.append(text);
  }
  texts.assign(1, replace_invalid_utf8(bytes));
}

GRAFT_IO void decoders::Replace::operator()(Texts& texts) const {
  for (std::string& text : texts) text = replace(text);
}

GRAFT_IO void decoders::ByteFallback::operator()(Texts& texts) const {
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

GRAFT_IO void decoders::Fuse::operator()(Texts& texts) const {
  std::string joined;
  for (const std::string& text : texts) joined.append(text);
  texts.assign(1, std::move(joined));
}

GRAFT_IO void decoders::Strip::operator()(Texts& texts) const {
  for (std::string& text : texts) {
    std::string_view rest = text;
    for (std::size_t i = 0; i < start && rest.starts_with(content); ++i)
      rest.remove_prefix(content.size());
    for (std::size_t i = 0; i < stop && rest.ends_with(content); ++i)
      rest.remove_suffix(content.size());
    text = std::string(rest);
  }
}

GRAFT_IO void decoders::WordPiece::operator()(Texts& texts) const {
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

GRAFT_IO void decoders::Metaspace::operator()(Texts& texts) const {
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const bool first = i == 0 && prepend_scheme != PrependScheme::never;
    texts[i] = replace_all(texts[i], replacement, first ? "" : " ");
  }
}

GRAFT_IO void decoders::Bpe::operator()(Texts& texts) const {
  for (std::size_t i = 0; i < texts.size(); ++i)
    texts[i] = replace_all(texts[i], suffix, i + 1 < texts.size() ? " " : "");
}

GRAFT_IO void decoders::Ctc::operator()(Texts& texts) const {
  texts.erase(std::unique(texts.begin(), texts.end()), texts.end());
  Texts out;
  for (const std::string& token : texts) {
    std::string text = replace_all(token, pad_token, "");
    if (cleanup) text = replace_all(WordPiece::cleaned(text), word_delimiter_token, " ");
    if (!text.empty()) out.push_back(std::move(text));
  }
  texts.swap(out);
}

GRAFT_IO std::string decoders::WordPiece::cleaned(std::string text) {
  static constexpr std::pair<std::string_view, std::string_view> kUndo[] = {
      {" .", "."},   {" ?", "?"},     {" !", "!"},     {" ,", ","},
      {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},   {" do not", " don't"},
      {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"},
  };
  for (const auto& [from, to] : kUndo) text = replace_all(text, from, to);
  return text;
}

GRAFT_IO std::string Decoder::operator()(std::vector<std::string> texts) const {
  for (const DecoderStep& step : steps)
    std::visit([&](const auto& decode) { decode(texts); }, step);
  std::string joined;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    if (i > 0 && steps.empty()) joined.push_back(' ');
    joined.append(texts[i]);
  }
  return joined;
}

}  // namespace graft::inline v0_1::text
