#pragma once

#include <string>
#include <utility>
#include <vector>

#include "graft/text/batch.hpp"
#include "graft/text/tokenizer.hpp"
#include "session.hpp"

/// Texts without labels, for predict and embed.
namespace cli {

/// Texts, or pairs of them. @param path  .csv, .tsv, .jsonl with the columns; any other file, or
/// "-" for standard input: one text a line
/// @throws IoError with file and line
std::vector<std::pair<std::string, std::string>> read_texts(const std::string& path,
                                                            const LabelledOptions& columns);

/// As examples of at most `max_length` tokens.
std::vector<graft::text::Example> encode_texts(
    const std::vector<std::pair<std::string, std::string>>& texts,
    const graft::text::Tokenizer& tokenizer, graft::Index max_length, bool pairs);

/// A field of comma-separated values, in quotes where it needs them.
std::string csv_field(const std::string& text);

/// Writes to a file, or to standard output for "-" and an empty path.
void write_output(const std::string& path, const std::string& text);

}  // namespace cli
