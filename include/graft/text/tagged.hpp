#pragma once

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graft/text/dataset.hpp"

/// Texts with a tag for every word: part of speech, entities.
namespace graft::inline v0_1::text {

struct TaggedDataOptions {
  std::string words_column = "tokens";  ///< JSON lines
  std::string tags_column = "tags";
  bool tagged = true;  ///< without: words only, tags are not looked for
  /// Names of the tags, when they are known from training; a tag outside of them is an error.
  std::vector<std::string> tag_names;
};

struct TaggedText {
  std::vector<std::string> words;
  std::vector<std::int64_t> tags;  ///< number of each word's tag; empty if none were asked for
};

struct TaggedData {
  std::vector<TaggedText> rows;
  std::vector<std::string> tag_names;  ///< by number
};

namespace detail {

struct NamedTags {
  Index line = 0;
  std::vector<std::string> words, tags;
};

/// CoNLL columns: a word a line, its tag the last of the columns, an empty line between texts.
inline std::vector<NamedTags> parse_columns(std::string_view text, std::string_view source,
                                            bool tagged) {
  std::vector<NamedTags> rows;
  bool open = false;
  Index number = 0;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = text.substr(at, end - at);
    at = end + 1;
    ++number;
    const auto fail = [&](std::string_view complaint) {
      throw IoError(concat(source, ":", number, ": ", complaint));
    };
    if (!io::is_utf8(line)) fail("not UTF-8");
    std::vector<std::string> fields;
    while (true) {
      const auto begin = line.find_first_not_of(" \t\r");
      if (begin == line.npos) break;
      const auto stop = std::min(line.find_first_of(" \t\r", begin), line.size());
      fields.emplace_back(line.substr(begin, stop - begin));
      line.remove_prefix(stop);
    }
    if (fields.empty() || fields.front() == "-DOCSTART-") {
      open = false;
      continue;
    }
    if (tagged && fields.size() < 2)
      fail(concat("the word '", fields.front(), "' has no tag in a second column"));
    if (!open) rows.push_back({number, {}, {}});
    open = true;
    rows.back().words.push_back(fields.front());
    if (tagged) rows.back().tags.push_back(fields.back());
  }
  return rows;
}

inline std::vector<NamedTags> parse_tagged_lines(std::string_view text, std::string_view source,
                                                 const TaggedDataOptions& options) {
  std::vector<NamedTags> rows;
  io::for_each_json_line(text, source, [&](const io::JsonView& view, Index line) {
    NamedTags row{line, view.at(options.words_column).strings(), {}};
    if (options.tagged) {
      row.tags = view.at(options.tags_column).strings();
      if (row.tags.size() != row.words.size())
        view.fail(concat(row.words.size(), " words in '", options.words_column, "' and ",
                         row.tags.size(), " tags in '", options.tags_column, "'"));
    }
    if (row.words.empty()) view.at(options.words_column).fail("no words");
    rows.push_back(std::move(row));
  });
  return rows;
}

}  // namespace detail

/// Reads tagged texts: JSON lines (.jsonl, .ndjson, .json) with a list of words and one of tags in
/// each object, or any other file as CoNLL columns (a word a line, its tag in the last column, an
/// empty line between texts, "-DOCSTART-" lines skipped).
/// Errors: IoError for comma-separated values; with file and line: a word without a tag, lists of
/// different lengths, a tag outside of `tag_names`, no texts, all words with one tag.
inline TaggedData load_tagged_data(const std::filesystem::path& path,
                                   const TaggedDataOptions& options = {}) {
  const std::string text = io::read_file(path), source = path.string(),
                    extension = path.extension().string();
  if (extension == ".csv" || extension == ".CSV")
    throw IoError(concat(source,
                         ": comma-separated values hold no lists of words; expected JSON lines "
                         "with lists of words and tags, or CoNLL columns"));
  const bool lines = extension == ".jsonl" || extension == ".ndjson" || extension == ".json";
  auto rows = lines ? detail::parse_tagged_lines(text, source, options)
                    : detail::parse_columns(text, source, options.tagged);
  if (rows.empty()) throw IoError(concat(source, ": no texts"));
  TaggedData data;
  data.tag_names = options.tag_names;
  if (options.tagged && data.tag_names.empty()) {
    std::map<std::string, Index> counts;
    for (const auto& row : rows)
      for (const auto& tag : row.tags) ++counts[tag];
    data.tag_names = detail::ordered_labels(counts);
    if (data.tag_names.size() < 2)
      throw IoError(concat(source, ": all words have the tag '", data.tag_names.front(),
                           "'; at least two tags are needed"));
  }
  for (auto& row : rows) {
    TaggedText tagged;
    for (const auto& tag : row.tags) {
      const auto found = std::find(data.tag_names.begin(), data.tag_names.end(), tag);
      if (found == data.tag_names.end()) {
        std::string known;
        for (const auto& one : data.tag_names) known += concat(known.empty() ? "" : ", ", one);
        throw IoError(concat(source, ":", row.line, ": the tag '", tag, "' is not one of ", known));
      }
      tagged.tags.push_back(found - data.tag_names.begin());
    }
    tagged.words = std::move(row.words);
    data.rows.push_back(std::move(tagged));
  }
  return data;
}

/// Tagged texts as examples: words are joined by blanks, the first token of a word has its tag as
/// label (0 where there are no tags), the other tokens kIgnoredLabel. A text is cut to `max_length`
/// tokens, special ones included; its words without a token left have no label.
/// @param cut  takes the number of texts that were longer
inline std::vector<Example> encode_tagged(const TaggedData& data, const Tokenizer& tokenizer,
                                          Index max_length, Index* cut = nullptr) {
  const EncodeOptions plain{.add_special = false, .parse_special = false, .max_length = 0};
  const auto [before, after] = tokenizer.frame();
  const Index room = max_length - std::ssize(before) - std::ssize(after);
  if (room < 1) throw ValueError(concat("maximum length ", max_length));
  std::vector<Example> examples;
  Index longer = 0;
  for (const TaggedText& row : data.rows) {
    Example example;
    example.ids = before;
    example.labels.assign(before.size(), kIgnoredLabel);
    Index left = room;
    for (std::size_t w = 0; w < row.words.size(); ++w) {
      auto ids = tokenizer.encode((w == 0 ? "" : " ") + row.words[w], plain);
      if (ids.empty()) ids.push_back(std::max(tokenizer.unk_id(), 0));
      if (std::ssize(ids) > left) {
        ++longer;
        break;
      }
      left -= std::ssize(ids);
      example.labels.push_back(row.tags.empty() ? 0 : row.tags[w]);
      example.labels.insert(example.labels.end(), ids.size() - 1, kIgnoredLabel);
      example.ids.insert(example.ids.end(), ids.begin(), ids.end());
    }
    example.ids.insert(example.ids.end(), after.begin(), after.end());
    example.labels.insert(example.labels.end(), after.size(), kIgnoredLabel);
    example.token_types.assign(example.ids.size(), 0);
    examples.push_back(std::move(example));
  }
  if (cut != nullptr) *cut = longer;
  return examples;
}

}  // namespace graft::inline v0_1::text
