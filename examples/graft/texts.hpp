#pragma once

#include <string>
#include <utility>
#include <vector>

#include "graft/text/batch.hpp"
#include "graft/text/tokenizer.hpp"
#include "session.hpp"

/// Texts from tables and lines, and whether tokenizer, adapter and model belong together.
namespace cli {

/// Columns of a table, and the files beside that of --data.
struct LabelledOptions {
  std::string text_column = "text", pair_column, label_column = "label", held_out_data, test_data;
  bool no_header = false;
};
void add_column_options(CLI::App& command, LabelledOptions& options);

/// Warns of a tokenizer that is much smaller than the model's vocabulary.
/// @throws ValueError if it has many tokens that the model does not know
void expect_tokenizer_of(const graft::models::Model& model, const graft::text::Tokenizer& tokenizer,
                         const std::filesystem::path& path);

/// Texts, or pairs of them. @param path  .csv, .tsv, .jsonl with the columns; any other file, or
/// "-" for standard input: one text a line
/// @throws IoError with file and line
std::vector<std::pair<std::string, std::string>> read_texts(const std::string& path,
                                                            const LabelledOptions& columns);

/// As examples of at most `max_length` tokens; warns of texts that are cut to them.
/// @param source  where they are from, for messages
std::vector<graft::text::Example> encode_texts(
    const std::vector<std::pair<std::string, std::string>>& texts,
    const graft::text::Tokenizer& tokenizer, graft::Index max_length, bool pairs,
    const std::string& source);

/// A field of comma-separated values, in quotes where it needs them.
std::string csv_field(const std::string& text);

/// Writes to a file, or to standard output for "-" and an empty path.
void write_output(const std::string& path, const std::string& text);

}  // namespace cli
