#include "texts.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <iterator>

#include "graft/io/atomic_file.hpp"
#include "graft/io/mapped_file.hpp"
#include "graft/io/utf8.hpp"
#include "graft/text/table.hpp"

namespace cli {
namespace {

namespace fs = std::filesystem;
using graft::concat;
using graft::Index;

using Texts = std::vector<std::pair<std::string, std::string>>;

Texts lines_of(const std::string& text, const std::string& source) {
  Texts texts;
  Index number = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    std::string line = text.substr(at, end - at);
    at = end + 1;
    ++number;
    if (line.ends_with('\r')) line.pop_back();
    if (!graft::io::is_utf8(line)) throw graft::IoError(concat(source, ":", number, ": not UTF-8"));
    texts.emplace_back(std::move(line), "");
  }
  return texts;
}

}  // namespace

void add_column_options(CLI::App& command, LabelledOptions& options) {
  const auto add = [&](const char* name, auto& value, const char* help) {
    return command.add_option(name, value, help)->group("Columns");
  };
  add("--text-column", options.text_column, "Column of the text; lists of words: tokens");
  add("--pair-column", options.pair_column, "Column of a second text; none by default");
  add("--label-column", options.label_column, "Column of the class or number; tags of words: tags");
  command
      .add_flag("--no-header", options.no_header,
                "CSV and TSV: the first line is a row; columns are called 1, 2, ...")
      ->group("Columns");
}

void expect_tokenizer_of(const graft::models::Model& model, const graft::text::Tokenizer& tokenizer,
                         const fs::path& path) {
  const Index known = model.info().vocabulary;
  constexpr Index kSpare = 64;  // some tokenizers name a few tokens of other inputs
  if (known > 0 && tokenizer.vocab_size() > known + kSpare)
    throw graft::ValueError(concat(path.string(), ": the tokenizer has ", tokenizer.vocab_size(),
                                   " tokens, the model ", known, ": it belongs to another model"));
  if (10 * tokenizer.vocab_size() < 9 * known)
    std::fprintf(
        stderr,
        "graft: warning: %s: the tokenizer has %td tokens, the model %td: it may belong to "
        "another model\n",
        path.c_str(), tokenizer.vocab_size(), known);
}

Texts read_texts(const std::string& path, const LabelledOptions& columns) {
  if (path == "-")
    return lines_of({std::istreambuf_iterator<char>(std::cin), {}}, "standard input");
  if (!fs::exists(path)) throw graft::IoError(path + ": no such data file");
  if (!graft::text::is_table(path)) return lines_of(graft::io::read_file(path), path);
  std::vector<std::string> names{columns.text_column};
  if (!columns.pair_column.empty()) names.push_back(columns.pair_column);
  const auto rows = graft::text::read_table(path, names, !columns.no_header);
  const std::size_t first = rows.column(columns.text_column);
  const std::size_t second = rows.column(names.back());
  Texts texts;
  for (const auto& row : rows.rows)
    texts.emplace_back(row.fields[first], columns.pair_column.empty() ? "" : row.fields[second]);
  return texts;
}

std::vector<graft::text::Example> encode_texts(const Texts& texts,
                                               const graft::text::Tokenizer& tokenizer,
                                               Index max_length, bool pairs,
                                               const std::string& source) {
  graft::text::LabelledData data;
  data.has_pairs = pairs;
  for (const auto& [text, pair] : texts) {
    graft::text::LabelledText row;
    row.text = text;
    row.pair = pair;
    data.rows.push_back(std::move(row));
  }
  Index cut = 0;
  auto examples = graft::text::encode_labelled(data, tokenizer, max_length, &cut);
  if (cut > 0)
    std::fprintf(stderr, "graft: warning: %s: %td of %td texts cut to %td tokens\n", source.c_str(),
                 cut, std::ssize(texts), max_length);
  return examples;
}

std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == text.npos) return text;
  std::string quoted = "\"";
  for (const char c : text) quoted += c == '"' ? std::string("\"\"") : std::string(1, c);
  return quoted + "\"";
}

void write_output(const std::string& path, const std::string& text) {
  if (path.empty() || path == "-") {
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
  } else {
    if (const auto folder = fs::path(path).parent_path(); !folder.empty())
      fs::create_directories(folder);
    graft::io::write_file_atomically(path, text);
  }
}

}  // namespace cli
