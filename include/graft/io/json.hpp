#pragma once

#include <cmath>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

#include "graft/base/error.hpp"
#include "graft/base/types.hpp"
#include "graft/io/mapped_file.hpp"
#include "graft/io/utf8.hpp"

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
inline Json parse_json(std::string_view text, std::string_view source, JsonLimits limits = {}) {
  std::vector<std::unordered_set<std::string>> keys;  // of the objects that are open
  const auto check = [&](int depth, Json::parse_event_t event, Json& value) {
    using Event = Json::parse_event_t;
    if ((event == Event::object_start || event == Event::array_start) && depth >= limits.depth) {
      throw IoError(concat(source, ": JSON nested deeper than ", limits.depth, " levels"));
    }
    if (limits.allow_duplicates) return true;
    if (event == Event::object_start) keys.emplace_back();
    if (event == Event::object_end) keys.pop_back();
    if (event == Event::key) {
      const auto& key = value.get_ref<const std::string&>();
      if (!keys.back().insert(key).second) {
        throw IoError(concat(source, ": key '", key, "' appears twice in one JSON object"));
      }
    }
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), check);
  } catch (const Json::exception& error) {
    // "[json.exception.parse_error.101] parse error at …": the bracket says nothing to a person.
    std::string_view reason = error.what();
    if (const std::size_t end = reason.find("] "); end != reason.npos)
      reason.remove_prefix(end + 2);
    throw IoError(concat(source, ": ", reason));
  }
}

/// Reads and parses a JSON file. Errors: IoError that names the file.
inline Json read_json(const std::filesystem::path& path, JsonLimits limits = {}) {
  return parse_json(read_file(path), path.string(), limits);
}

/// The text of a JSON value: indented by `indent` blanks, or on one line when negative. Errors:
/// ValueError when a string is not UTF-8.
inline std::string json_text(const Json& value, int indent = 2) {
  try {
    return value.dump(indent);
  } catch (const Json::exception& error) {
    throw ValueError(concat("json_text: ", error.what()));
  }
}

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

  [[noreturn]] void fail(std::string_view complaint) const {
    if (path_.empty()) throw IoError(concat(file_, ": ", complaint));
    throw IoError(concat(file_, ": field '", path_, "': ", complaint));
  }

  bool is_null() const { return value_->is_null(); }
  bool is_object() const { return value_->is_object(); }
  bool is_array() const { return value_->is_array(); }
  bool is_string() const { return value_->is_string(); }
  bool is_boolean() const { return value_->is_boolean(); }
  bool is_number() const { return value_->is_number(); }
  bool is_integer() const { return value_->is_number_integer(); }

  /// True when this object has the key, with a value other than null.
  bool has(std::string_view key) const { return find(key).has_value(); }
  std::optional<JsonView> find(std::string_view key) const {
    expect(value_->is_object(), "an object");
    const auto found = value_->find(key);
    if (found == value_->end() || found->is_null()) return std::nullopt;
    return child(*found, key);
  }
  JsonView at(std::string_view key) const {
    expect(value_->is_object(), "an object");
    const auto found = value_->find(key);
    if (found == value_->end()) fail(concat("key '", key, "' is missing"));
    return child(*found, key);
  }
  /// The elements of an array.
  std::vector<JsonView> elements() const {
    expect(value_->is_array(), "an array");
    std::vector<JsonView> views;
    views.reserve(value_->size());
    for (const Json& element : *value_) {
      views.push_back(JsonView(element, file_, concat(path_, "[", views.size(), "]")));
    }
    return views;
  }
  /// Keys and values of an object, sorted by key.
  std::vector<std::pair<std::string, JsonView>> members() const {
    expect(value_->is_object(), "an object");
    std::vector<std::pair<std::string, JsonView>> views;
    views.reserve(value_->size());
    for (const auto& [key, value] : value_->items()) views.emplace_back(key, child(value, key));
    return views;
  }

  const std::string& string() const {
    expect(value_->is_string(), "a string");
    return value_->get_ref<const std::string&>();
  }
  bool boolean() const {
    expect(value_->is_boolean(), "true or false");
    return value_->get<bool>();
  }
  /// A whole number between the bounds. 2.0 counts as one; 2.5 and "2" do not.
  std::int64_t integer(std::int64_t lowest = std::numeric_limits<std::int64_t>::min(),
                       std::int64_t highest = std::numeric_limits<std::int64_t>::max()) const {
    std::int64_t number = 0;
    if (value_->is_number_unsigned()) {
      const auto large = value_->get<std::uint64_t>();
      if (large > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
        fail("does not fit 64 bits");
      }
      number = static_cast<std::int64_t>(large);
    } else if (value_->is_number_integer()) {
      number = value_->get<std::int64_t>();
    } else {
      expect(value_->is_number_float(), "a whole number");
      const double real = value_->get<double>();
      // 2^53: above it, not every integer is a double.
      if (!(std::abs(real) <= 9007199254740992.0) || real != std::floor(real))
        fail("expected a whole number");
      number = static_cast<std::int64_t>(real);
    }
    if (number < lowest || number > highest) {
      fail(concat("expected a whole number from ", lowest, " to ", highest, ", found ", number));
    }
    return number;
  }
  double number() const {
    expect(value_->is_number(), "a number");
    return value_->get<double>();
  }
  std::vector<std::string> strings() const {
    std::vector<std::string> list;
    for (const JsonView& element : elements()) list.push_back(element.string());
    return list;
  }
  std::vector<std::int64_t> integers(
      std::int64_t lowest = std::numeric_limits<std::int64_t>::min(),
      std::int64_t highest = std::numeric_limits<std::int64_t>::max()) const {
    std::vector<std::int64_t> list;
    for (const JsonView& element : elements()) list.push_back(element.integer(lowest, highest));
    return list;
  }
  std::vector<double> numbers() const {
    std::vector<double> list;
    for (const JsonView& element : elements()) list.push_back(element.number());
    return list;
  }

  std::string string_or(std::string_view key, std::string_view otherwise) const {
    const auto view = find(key);
    return view ? view->string() : std::string(otherwise);
  }
  bool boolean_or(std::string_view key, bool otherwise) const {
    const auto view = find(key);
    return view ? view->boolean() : otherwise;
  }
  std::int64_t integer_or(std::string_view key, std::int64_t otherwise,
                          std::int64_t lowest = std::numeric_limits<std::int64_t>::min(),
                          std::int64_t highest = std::numeric_limits<std::int64_t>::max()) const {
    const auto view = find(key);
    return view ? view->integer(lowest, highest) : otherwise;
  }
  double number_or(std::string_view key, double otherwise) const {
    const auto view = find(key);
    return view ? view->number() : otherwise;
  }
  std::vector<std::string> strings_or(std::string_view key,
                                      std::vector<std::string> otherwise) const {
    const auto view = find(key);
    return view ? view->strings() : std::move(otherwise);
  }

 private:
  JsonView(const Json& value, std::string_view file, std::string path)
      : value_(&value), file_(file), path_(std::move(path)) {}

  JsonView child(const Json& value, std::string_view key) const {
    return JsonView(value, file_, path_.empty() ? std::string(key) : concat(path_, ".", key));
  }
  void expect(bool holds, std::string_view wanted) const {
    if (!holds) fail(concat("expected ", wanted, ", found ", describe()));
  }
  std::string describe() const {
    if (value_->is_object()) return "an object";
    if (value_->is_array()) return "an array";
    if (value_->is_null()) return "null";
    std::string text = value_->dump(-1, ' ', true, Json::error_handler_t::replace);
    if (text.size() > 60) text = text.substr(0, 57).append("...");
    return text;
  }

  const Json* value_;
  std::string file_;
  std::string path_;
};

/// Calls `visit(view, line)` for each line of a JSON-lines text. Every line holds one object; blank
/// lines are skipped, lines count from 1. The view lives during the call only. Errors: IoError
/// "source:line: …", from here and from the view's accessors.
inline void for_each_json_line(std::string_view text, std::string_view source,
                               const std::function<void(const JsonView&, Index)>& visit,
                               JsonLimits limits = {}) {
  text = without_byte_order_mark(text);
  for (Index line = 1; !text.empty(); ++line) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    const std::string_view content = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    if (content.find_first_not_of(" \t\r") == content.npos) continue;
    const std::string place = concat(source, ":", line);
    const Json value = parse_json(content, place, limits);
    const JsonView view(value, place);
    if (!value.is_object()) view.fail("expected one JSON object a line");
    visit(view, line);
  }
}

}  // namespace graft::inline v0_1::io
