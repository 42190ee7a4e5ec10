#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <random>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graft/text/dataset.hpp"

/// Texts in which a model is to guess tokens that are hidden from it.
namespace graft::inline v0_1::text {

struct MaskedDataOptions {
  Index sequence_length = 256;  ///< tokens in a row, those that the template adds included
  /// Documents follow one another, with the separator between them, and are cut into rows.
  /// Otherwise each document makes rows of its own.
  bool packing = true;
  DocumentUnit unit = DocumentUnit::file;  ///< of plain text
  std::string text_column = "text";        ///< of a table
  bool header = true;  ///< CSV and TSV: the first line names the columns, else they are 1, 2, …
};

namespace detail {

/// True for tokens that are never hidden: control tokens and those with a role.
inline bool never_masked(const Tokenizer& tokenizer, std::int32_t id) {
  const SpecialTokens& s = tokenizer.special();
  return tokenizer.is_special(id) || id == s.bos || id == s.eos || id == s.pad || id == s.unk ||
         id == s.cls || id == s.sep || id == s.mask;
}

/// A text with the line where it begins; 0: not known.
using LinedText = std::pair<Index, std::string>;

/// The texts of a file. @throws IoError with file and line for an empty text of a table, or an
/// empty line where lines make rows of their own
inline std::vector<LinedText> texts_of(const std::filesystem::path& path,
                                       const MaskedDataOptions& options) {
  std::vector<LinedText> texts;
  const auto add = [&](Index line, std::string text) {
    if (text.find_first_not_of(" \t\r\n") == text.npos)
      throw IoError(concat(path.string(), ":", line, ": the text is empty"));
    texts.emplace_back(line, std::move(text));
  };
  if (is_table(path)) {
    Table table = read_table(path, {options.text_column}, options.header);
    const std::size_t column = table.column(options.text_column);
    for (TableRow& row : table.rows) add(row.line, std::move(row.fields[column]));
    return texts;
  }
  const std::string text = io::read_file(path);
  if (options.unit != DocumentUnit::line || options.packing) {
    for (const std::string_view document : documents_of(text, options.unit))
      texts.emplace_back(0, document);
    return texts;
  }
  Index line = 0;
  for_each_line(io::without_byte_order_mark(text),
                [&](std::string_view content, std::size_t, std::size_t) {
                  add(++line, std::string(content));
                });
  return texts;
}

}  // namespace detail

/// Reads texts for a masked language model: a table (.csv, .tsv, .jsonl, …) has them in a column,
/// any other file is plain UTF-8 text. Each row is [CLS] text [SEP], or what the tokenizer's
/// template has in their place; its labels are the tokens that may be hidden, kIgnoredLabel stands
/// at the others. Errors: IoError that names file and line for what cannot be read and for a text
/// without a token that may be hidden; ValueError for rows too short for the template, and for no
/// text.
inline LanguageData load_masked_data(const std::filesystem::path& path, const Tokenizer& tokenizer,
                                     const MaskedDataOptions& options = {}) {
  const auto [before, after] = tokenizer.frame();
  const Index room = options.sequence_length - std::ssize(before) - std::ssize(after);
  if (room < 1)
    throw ValueError(concat("sequence length ", options.sequence_length, "; expected at least ",
                            std::ssize(before) + std::ssize(after) + 1));
  const std::int32_t separator = after.empty() ? tokenizer.eos_id() : after.back();
  const auto hidden = [&](std::int32_t id) { return !detail::never_masked(tokenizer, id); };

  LanguageData data;
  std::vector<std::int32_t> pending;
  const auto cut = [&](bool all) {
    std::size_t begin = 0;
    while (pending.size() - begin >= static_cast<std::size_t>(room) ||
           (all && begin < pending.size())) {
      const std::size_t end = std::min(begin + static_cast<std::size_t>(room), pending.size());
      const auto first = pending.begin() + static_cast<std::ptrdiff_t>(begin),
                 last = pending.begin() + static_cast<std::ptrdiff_t>(end);
      begin = end;
      if (std::none_of(first, last, hidden)) {
        ++data.dropped;
        continue;
      }
      Example example;
      example.ids = before;
      example.ids.insert(example.ids.end(), first, last);
      example.ids.insert(example.ids.end(), after.begin(), after.end());
      for (const std::int32_t id : example.ids)
        example.labels.push_back(hidden(id) ? id : kIgnoredLabel);
      data.tokens += example.length();
      data.examples.push_back(std::move(example));
    }
    pending.erase(pending.begin(), pending.begin() + static_cast<std::ptrdiff_t>(begin));
  };
  for (const auto& [line, text] : detail::texts_of(path, options)) {
    ++data.documents;
    const auto ids =
        tokenizer.encode(text, {.add_special = false, .parse_special = true, .max_length = 0});
    if (!options.packing && std::none_of(ids.begin(), ids.end(), hidden))
      throw IoError(concat(path.string(), line > 0 ? concat(":", line) : "",
                           ": the text has no token that can be masked"));
    if (!pending.empty() && separator != kNoToken) pending.push_back(separator);
    pending.insert(pending.end(), ids.begin(), ids.end());
    cut(!options.packing);
  }
  cut(true);
  if (data.examples.empty())
    throw ValueError(concat(path.string(), ": no text with a token that can be masked"));
  return data;
}

/// How tokens are hidden: of those that may be, each is chosen with probability `rate`; a chosen
/// one becomes the mask token (80 %), a random token (10 %), or stays (10 %).
struct Masking {
  double rate = 0.15;
  std::int32_t mask_id = kNoToken;
  Index vocabulary = 0;  ///< random tokens are below this
};

/// @param model_vocabulary  tokens that the model knows, which may be fewer than the tokenizer's
/// @throws ValueError for a rate outside of (0, 1), or a tokenizer without a mask token
inline Masking masking_of(const Tokenizer& tokenizer, Index model_vocabulary, double rate = 0.15) {
  if (!(rate > 0 && rate < 1))
    throw ValueError(concat("mask rate ", rate, "; expected a number between 0 and 1"));
  if (tokenizer.mask_id() == kNoToken)
    throw ValueError("the tokenizer has no mask token; a masked language model needs one");
  return {rate, tokenizer.mask_id(), std::min(tokenizer.vocab_size(), model_vocabulary)};
}

/// Hides tokens of one row: labels say which may be hidden and stay at those that were chosen. All
/// that is random depends on the seed.
///
/// At least one token is chosen, if one may be, so that every row teaches something.
/// Source: Devlin et al. 2019, arXiv:1810.04805, section 3.1. Deviation: a row in which chance
/// chooses no token would have no prediction there.
inline void mask_tokens(Example& row, const Masking& masking, std::uint64_t seed) {
  std::mt19937_64 generator(seed);
  const auto uniform = [&] { return static_cast<double>(generator() >> 11) * 0x1p-53; };
  std::vector<std::size_t> allowed, chosen;
  for (std::size_t i = 0; i < row.labels.size(); ++i)
    if (row.labels[i] != kIgnoredLabel) allowed.push_back(i);
  if (allowed.empty()) return;
  for (const std::size_t i : allowed)
    if (uniform() < masking.rate) chosen.push_back(i);
  if (chosen.empty())
    chosen.push_back(
        allowed[static_cast<std::size_t>(detail::draw_below(generator, allowed.size()))]);
  std::vector<std::int64_t> labels(row.labels.size(), kIgnoredLabel);
  for (const std::size_t i : chosen) {
    labels[i] = row.labels[i];
    const double fate = uniform();
    if (fate < 0.8)
      row.ids[i] = masking.mask_id;
    else if (fate < 0.9)
      row.ids[i] = static_cast<std::int32_t>(
          detail::draw_below(generator, static_cast<std::uint64_t>(masking.vocabulary)));
  }
  row.labels = std::move(labels);
}

}  // namespace graft::inline v0_1::text
