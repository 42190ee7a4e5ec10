#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graft/base/error.hpp"
#include "graft/base/types.hpp"
#include "graft/config.hpp"

namespace graft::inline v0_1::io {

/// A JSON value. This header is the only place that includes the JSON library.
using Json = nlohmann::json;

/// What a JSON text may be, beyond being well-formed UTF-8 JSON.
struct JsonLimits {
  int depth = 64;                 ///< objects and arrays inside each other
  bool allow_duplicates = false;  ///< the last one of two equal keys wins; otherwise an error
};

/// Parses JSON text that nobody vouches for.
/// @param source  name of the file, for messages
/// Errors: IoError with source, position and reason (syntax, UTF-8, depth, duplicated key).
GRAFT_IO Json parse_json(std::string_view text, std::string_view source, JsonLimits limits = {});

/// Reads and parses a JSON file. Errors: IoError that names the file.
GRAFT_IO Json read_json(const std::filesystem::path& path, JsonLimits limits = {});

/// The text of a JSON value: indented by `indent` blanks, or on one line when negative. Errors:
/// ValueError when a string is not UTF-8.
GRAFT_IO std::string json_text(const Json& value, int indent = 2);

/// A place in a JSON document that knows its file and its path there, so that every complaint names
/// both.
///
///     JsonView config(document, "adapter_config.json");
///     const Index rank = config.at("r").integer(1, 1 << 20);
///     const bool rslora = config.boolean_or("use_rslora", false);
///
/// A view does not own the document. A key whose value is null counts as absent for `find` and the
/// `_or` functions. Errors: IoError "file: field 'a.b[3]': …" from every accessor.
class JsonView {
 public:
  JsonView(const Json& value, std::string_view file) : value_(&value), file_(file) {}

  const Json& json() const { return *value_; }
  const std::string& file() const { return file_; }
  /// Path from the root, for example "layers[2].name"; empty at the root.
  const std::string& path() const { return path_; }

  [[noreturn]] void fail(std::string_view complaint) const;

  bool is_null() const { return value_->is_null(); }
  bool is_object() const { return value_->is_object(); }
  bool is_array() const { return value_->is_array(); }
  bool is_string() const { return value_->is_string(); }
  bool is_boolean() const { return value_->is_boolean(); }
  bool is_number() const { return value_->is_number(); }
  bool is_integer() const { return value_->is_number_integer(); }

  /// True when this object has the key, with a value other than null.
  bool has(std::string_view key) const { return find(key).has_value(); }
  std::optional<JsonView> find(std::string_view key) const;
  JsonView at(std::string_view key) const;
  /// The elements of an array.
  std::vector<JsonView> elements() const;
  /// Keys and values of an object, sorted by key.
  std::vector<std::pair<std::string, JsonView>> members() const;

  const std::string& string() const;
  bool boolean() const;
  /// A whole number between the bounds. 2.0 counts as one; 2.5 and "2" do not.
  std::int64_t integer(std::int64_t lowest = std::numeric_limits<std::int64_t>::min(),
                       std::int64_t highest = std::numeric_limits<std::int64_t>::max()) const;
  double number() const;
  std::vector<std::string> strings() const;
  std::vector<std::int64_t> integers(
      std::int64_t lowest = std::numeric_limits<std::int64_t>::min(),
      std::int64_t highest = std::numeric_limits<std::int64_t>::max()) const;
  std::vector<double> numbers() const;

  std::string string_or(std::string_view key, std::string_view otherwise) const;
  bool boolean_or(std::string_view key, bool otherwise) const;
  std::int64_t integer_or(std::string_view key, std::int64_t otherwise,
                          std::int64_t lowest = std::numeric_limits<std::int64_t>::min(),
                          std::int64_t highest = std::numeric_limits<std::int64_t>::max()) const;
  double number_or(std::string_view key, double otherwise) const;
  std::vector<std::string> strings_or(std::string_view key,
                                      std::vector<std::string> otherwise) const;

 private:
  JsonView(const Json& value, std::string_view file, std::string path)
      : value_(&value), file_(file), path_(std::move(path)) {}

  JsonView child(const Json& value, std::string_view key) const;
  void expect(bool holds, std::string_view wanted) const;
  std::string describe() const;

  const Json* value_;
  std::string file_;
  std::string path_;
};

/// Calls `visit(view, line)` for each line of a JSON-lines text. Every line holds one object; blank
/// lines are skipped, lines count from 1. The view lives during the call only. Errors: IoError
/// "source:line: …", from here and from the view's accessors.
GRAFT_IO void for_each_json_line(std::string_view text, std::string_view source,
                                 const std::function<void(const JsonView&, Index)>& visit,
                                 JsonLimits limits = {});

}  // namespace graft::inline v0_1::io

#if !defined(GRAFT_FILES_COMPILED)
#include "graft/io/impl/json_impl.hpp"
#endif
