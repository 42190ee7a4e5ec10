#pragma once

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graft/base/error.hpp"
#include "graft/base/types.hpp"
#include "graft/io/json.hpp"
#include "graft/io/mapped_file.hpp"
#include "graft/io/utf8.hpp"
#include "graft/text/batch.hpp"
#include "graft/text/chat_template.hpp"
#include "graft/text/sampling.hpp"
#include "graft/text/table.hpp"
#include "graft/text/tokenizer.hpp"

namespace graft::inline v0_1::text {

// ---- language modelling ------------------------------------------------------------------------

/// Where one document ends and the next begins in a plain text file.
enum class DocumentUnit { file, blank_line, line };

struct LanguageDataOptions {
  Index sequence_length = 256;
  /// Plain texts: documents follow one another, each ended by eos, and are cut into sequences of
  /// exactly sequence_length tokens (the last may be shorter). Otherwise each document makes its
  /// own sequences.
  bool packing = true;
  DocumentUnit unit = DocumentUnit::file;
  /// Conversations: only what the assistant wrote counts in the loss; prompt and completion: only
  /// the completion.
  bool answers_only = false;
  ChatOptions chat;
};

/// Examples for a language model, and what became of the data.
struct LanguageData {
  std::vector<Example> examples;
  Index documents = 0;  ///< documents, conversations or pairs read
  Index tokens = 0;     ///< tokens in the examples
  Index truncated = 0;  ///< conversations or pairs that were too long
  Index dropped = 0;    ///< those in which nothing was left to learn from
};

namespace detail {

/// body(line, begin, next) for each line, without its end; it begins at `begin` of the text, the
/// one behind it at `next`.
template <class Body>
void for_each_line(std::string_view text, const Body& body) {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    std::string_view line = text.substr(at, end - at);
    if (line.ends_with('\r')) line.remove_suffix(1);
    body(line, at, end + 1);
    at = end + 1;
  }
}

inline std::vector<std::string_view> documents_of(std::string_view text, DocumentUnit unit) {
  text = io::without_byte_order_mark(text);
  std::vector<std::string_view> documents;
  const auto keep = [&](std::string_view document) {
    if (document.find_first_not_of(" \t\r\n") != document.npos) documents.push_back(document);
  };
  if (unit == DocumentUnit::file) {
    keep(text);
    return documents;
  }
  std::size_t begin = 0;
  for_each_line(text, [&](std::string_view line, std::size_t at, std::size_t next) {
    const bool blank = line.find_first_not_of(" \t") == line.npos;
    if (unit == DocumentUnit::line) {
      keep(line);
    } else if (blank) {
      keep(text.substr(begin, at - begin));
      begin = next;
    }
  });
  if (unit == DocumentUnit::blank_line && begin < text.size()) keep(text.substr(begin));
  return documents;
}

/// Cuts documents into sequences.
class SequenceMaker {
 public:
  SequenceMaker(const Tokenizer& tokenizer, const LanguageDataOptions& options, LanguageData& data)
      : tokenizer_(tokenizer), options_(options), data_(data) {
    if (options.sequence_length < 2)
      throw ValueError(
          concat("sequence length ", options.sequence_length, "; expected at least 2"));
  }

  void add_document(std::string_view text) {
    ++data_.documents;
    std::vector<std::int32_t> ids = tokenizer_.encode(text);
    const std::int32_t eos = tokenizer_.eos_id();
    if (eos != kNoToken && (ids.empty() || ids.back() != eos)) ids.push_back(eos);
    pending_.insert(pending_.end(), ids.begin(), ids.end());
    if (!options_.packing) flush();
    if (pending_.size() > kEnough) cut(false);
  }
  void flush() { cut(true); }

  /// An example of its own; `counts` says which tokens the loss sees.
  void add_sequence(std::vector<std::int32_t> ids, const std::vector<std::uint8_t>& counts) {
    ++data_.documents;
    const auto limit = static_cast<std::size_t>(options_.sequence_length);
    if (ids.size() > limit) {
      ids.resize(limit);
      ++data_.truncated;
    }
    Example example;
    bool any = false;
    for (std::size_t i = 0; i < ids.size(); ++i) {
      const bool counted = counts.empty() || counts[i] != 0;
      any = any || (counted && i > 0);  // nothing predicts the first token
      example.labels.push_back(counted ? ids[i] : kIgnoredLabel);
    }
    if (!any) {
      ++data_.dropped;
      return;
    }
    example.ids = std::move(ids);
    data_.tokens += example.length();
    data_.examples.push_back(std::move(example));
  }

 private:
  static constexpr std::size_t kEnough = 1 << 20;  // cut in portions: erasing costs time

  void cut(bool all) {
    const auto length = static_cast<std::size_t>(options_.sequence_length);
    std::size_t begin = 0;
    while (pending_.size() - begin >= length || (all && pending_.size() - begin >= 2)) {
      const std::size_t end = std::min(begin + length, pending_.size());
      Example example;
      example.ids.assign(pending_.begin() + static_cast<std::ptrdiff_t>(begin),
                         pending_.begin() + static_cast<std::ptrdiff_t>(end));
      example.labels.assign(example.ids.begin(), example.ids.end());
      data_.tokens += example.length();
      data_.examples.push_back(std::move(example));
      begin = end;
    }
    if (all) begin = pending_.size();  // a single token teaches nothing
    pending_.erase(pending_.begin(), pending_.begin() + static_cast<std::ptrdiff_t>(begin));
  }

  const Tokenizer& tokenizer_;
  const LanguageDataOptions& options_;
  LanguageData& data_;
  std::vector<std::int32_t> pending_;
};

inline std::vector<ChatMessage> chat_messages(const io::JsonView& list) {
  std::vector<ChatMessage> messages;
  for (const io::JsonView& entry : list.elements())
    messages.push_back({entry.at("role").string(), entry.at("content").string()});
  if (messages.empty()) list.fail("a conversation without messages");
  return messages;
}

}  // namespace detail

/// Reads data for a language model from one file.
///
/// * `.jsonl`, `.ndjson`, `.json`: one object a line, with `messages` (role and content each; the
///   model's chat template), or `prompt` and `completion` (joined as they are), or `text`.
/// * anything else: plain UTF-8 text.
///
/// @param chat  template for conversations; without one, that of the tokenizer
/// Errors: IoError that names file and line for what cannot be read; ValueError for a tokenizer
/// without chat template, a template that refuses a conversation (with file and line), no example.
inline LanguageData load_language_data(const std::filesystem::path& path,
                                       const Tokenizer& tokenizer,
                                       const LanguageDataOptions& options = {},
                                       const std::optional<ChatTemplate>& chat = std::nullopt) {
  LanguageData data;
  detail::SequenceMaker maker(tokenizer, options, data);
  const std::string text = io::read_file(path);
  const std::string extension = path.extension().string();
  if (extension != ".jsonl" && extension != ".ndjson" && extension != ".json") {
    for (const std::string_view document : detail::documents_of(text, options.unit))
      maker.add_document(document);
  } else {
    std::optional<ChatTemplate> format = chat;
    ChatOptions chat_options = options.chat;
    chat_options.mark_assistant = options.answers_only;
    io::for_each_json_line(text, path.string(), [&](const io::JsonView& view, Index) {
      if (const auto messages = view.find("messages")) {
        if (!format) format = ChatTemplate::of(tokenizer);
        try {
          EncodedChat encoded =
              format->encode(tokenizer, detail::chat_messages(*messages), chat_options);
          if (!options.answers_only) encoded.assistant.clear();
          maker.add_sequence(std::move(encoded.ids), encoded.assistant);
        } catch (const ValueError& error) {
          throw ValueError(concat(view.file(), ": ", error.what()));
        }
      } else if (const auto prompt = view.find("prompt")) {
        const std::string& question = prompt->string();
        const std::string whole = question + view.at("completion").string();
        const TextRange answer{static_cast<Index>(question.size()),
                               static_cast<Index>(whole.size())};
        MarkedEncoding encoded = tokenizer.encode_marked(whole, std::span(&answer, 1));
        if (tokenizer.adds_bos()) {
          encoded.ids.insert(encoded.ids.begin(), tokenizer.bos_id());
          encoded.marked.insert(encoded.marked.begin(), std::uint8_t{0});
        }
        if (tokenizer.eos_id() != kNoToken) {
          encoded.ids.push_back(tokenizer.eos_id());
          encoded.marked.push_back(1);
        }
        if (!options.answers_only) encoded.marked.clear();
        maker.add_sequence(std::move(encoded.ids), encoded.marked);
      } else if (const auto document = view.find("text")) {
        maker.add_document(document->string());
      } else {
        view.fail("expected a key 'messages', 'text' or 'prompt'");
      }
    });
  }
  maker.flush();
  if (data.examples.empty()) {
    throw ValueError(concat(path.string(), ": no example to learn from (", data.documents,
                            " documents, ", data.dropped, " dropped)"));
  }
  return data;
}

// ---- classification and regression -------------------------------------------------------------

struct LabelledDataOptions {
  std::string text_column = "text";
  std::string pair_column;  ///< second text, empty: none
  std::string label_column = "label";
  bool header = true;  ///< CSV and TSV: the first line names the columns, else they are 1, 2, …
  bool regression = false;  ///< labels are numbers to be predicted
  /// Names of the classes, when they are known from training; a label outside of them is an error.
  std::vector<std::string> label_names;
};

struct LabelledText {
  std::string text;
  std::string pair;
  std::int64_t label = kIgnoredLabel;
  float target = 0;
};

struct LabelledData {
  std::vector<LabelledText> rows;
  std::vector<std::string> label_names;  ///< by class number; empty for regression
  bool has_pairs = false;
};

namespace detail {

/// Class names in a fixed order: by value if all are whole numbers, else by their bytes.
inline std::vector<std::string> ordered_labels(const std::map<std::string, Index>& counts) {
  std::vector<std::string> names;
  bool numeric = true;
  const auto number = [](const std::string& name) {
    std::int64_t value = 0;
    const auto result = std::from_chars(name.data(), name.data() + name.size(), value);
    const bool whole = result.ec == std::errc() && result.ptr == name.data() + name.size();
    return whole ? std::optional(value) : std::nullopt;
  };
  for (const auto& [name, count] : counts) {
    names.push_back(name);
    numeric = numeric && number(name).has_value();
  }
  if (numeric) {
    std::stable_sort(names.begin(), names.end(), [&](const std::string& a, const std::string& b) {
      return *number(a) < *number(b);
    });
  }
  return names;
}

}  // namespace detail

/// Reads labelled texts from a CSV, TSV or JSON-lines file.
/// Errors: IoError with file and line: a missing column, a label outside of `label_names`, an empty
/// label, a target that is no finite number, all rows of one class.
inline LabelledData load_labelled_data(const std::filesystem::path& path,
                                       const LabelledDataOptions& options = {}) {
  std::vector<std::string> columns{options.text_column, options.label_column};
  if (!options.pair_column.empty()) columns.push_back(options.pair_column);
  const Table table = read_table(path, columns, options.header);
  const std::size_t text = table.column(options.text_column);
  const std::size_t label = table.column(options.label_column);
  LabelledData data;
  data.has_pairs = !options.pair_column.empty();
  const std::size_t pair = data.has_pairs ? table.column(options.pair_column) : 0;

  data.label_names = options.label_names;
  if (!options.regression && data.label_names.empty()) {
    std::map<std::string, Index> counts;
    for (const TableRow& row : table.rows) ++counts[row.fields[label]];
    data.label_names = detail::ordered_labels(counts);
    if (data.label_names.size() < 2) {
      throw IoError(concat(table.source, ": all ", table.rows.size(), " rows have the label '",
                           data.label_names[0], "'; classification needs at least two classes"));
    }
  }
  for (const TableRow& row : table.rows) {
    LabelledText labelled;
    labelled.text = row.fields[text];
    if (data.has_pairs) labelled.pair = row.fields[pair];
    const std::string& name = row.fields[label];
    if (name.empty())
      table.fail(row, concat("the label in column '", options.label_column, "' is empty"));
    if (options.regression) {
      const auto result = std::from_chars(name.data(), name.data() + name.size(), labelled.target);
      if (result.ec != std::errc() || result.ptr != name.data() + name.size() ||
          !std::isfinite(labelled.target)) {
        table.fail(row, concat("the target '", name, "' is not a finite number"));
      }
    } else {
      const auto found = std::find(data.label_names.begin(), data.label_names.end(), name);
      if (found == data.label_names.end()) {
        std::string known;
        for (const std::string& one : data.label_names)
          known += concat(known.empty() ? "" : ", ", one);
        table.fail(row, concat("the label '", name, "' is not one of ", known));
      }
      labelled.label = found - data.label_names.begin();
    }
    data.rows.push_back(std::move(labelled));
  }
  return data;
}

/// Labelled texts as examples, with the tokenizer's special tokens and token types, cut to
/// `max_length` tokens. @param cut  takes the number of texts that were longer
inline std::vector<Example> encode_labelled(const LabelledData& data, const Tokenizer& tokenizer,
                                            Index max_length, Index* cut = nullptr) {
  if (max_length < 1) throw ValueError(concat("maximum length ", max_length));
  std::vector<Example> examples;
  examples.reserve(data.rows.size());
  Index longer = 0;
  for (const LabelledText& row : data.rows) {
    const auto encode = [&](Index limit) {
      EncodeOptions options;
      options.max_length = limit;
      return data.has_pairs ? tokenizer.encode_pair(row.text, row.pair, options)
                            : tokenizer.encode_single(row.text, options);
    };
    Encoding encoding = encode(0);
    if (std::ssize(encoding.ids) > max_length) {
      encoding = encode(max_length);
      ++longer;
    }
    Example example;
    example.ids = std::move(encoding.ids);
    example.token_types = std::move(encoding.type_ids);
    if (example.ids.empty()) {  // an empty text and no special tokens
      example.ids.push_back(tokenizer.pad_id());
      example.token_types.push_back(0);
    }
    example.label = row.label;
    example.target = row.target;
    examples.push_back(std::move(example));
  }
  if (cut != nullptr) *cut = longer;
  return examples;
}

}  // namespace graft::inline v0_1::text
