#pragma once

#include <algorithm>
#include <cmath>
#include <unordered_set>

#include "graft/io/json.hpp"
#include "graft/io/mapped_file.hpp"
#include "graft/io/utf8.hpp"

namespace graft::inline v0_1::io {

GRAFT_IO Json parse_json(std::string_view text, std::string_view source, JsonLimits limits) {
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

GRAFT_IO Json read_json(const std::filesystem::path& path, JsonLimits limits) {
  return parse_json(read_file(path), path.string(), limits);
}

GRAFT_IO std::string json_text(const Json& value, int indent) {
  try {
    return value.dump(indent);
  } catch (const Json::exception& error) {
    throw ValueError(concat("json_text: ", error.what()));
  }
}

GRAFT_IO void JsonView::fail(std::string_view complaint) const {
  if (path_.empty()) throw IoError(concat(file_, ": ", complaint));
  throw IoError(concat(file_, ": field '", path_, "': ", complaint));
}

GRAFT_IO std::optional<JsonView> JsonView::find(std::string_view key) const {
  expect(value_->is_object(), "an object");
  const auto found = value_->find(key);
  if (found == value_->end() || found->is_null()) return std::nullopt;
  return child(*found, key);
}

GRAFT_IO JsonView JsonView::at(std::string_view key) const {
  expect(value_->is_object(), "an object");
  const auto found = value_->find(key);
  if (found == value_->end()) fail(concat("key '", key, "' is missing"));
  return child(*found, key);
}

GRAFT_IO std::vector<JsonView> JsonView::elements() const {
  expect(value_->is_array(), "an array");
  std::vector<JsonView> views;
  views.reserve(value_->size());
  for (const Json& element : *value_) {
    views.push_back(JsonView(element, file_, concat(path_, "[", views.size(), "]")));
  }
  return views;
}

GRAFT_IO std::vector<std::pair<std::string, JsonView>> JsonView::members() const {
  expect(value_->is_object(), "an object");
  std::vector<std::pair<std::string, JsonView>> views;
  views.reserve(value_->size());
  for (const auto& [key, value] : value_->items()) views.emplace_back(key, child(value, key));
  return views;
}

GRAFT_IO const std::string& JsonView::string() const {
  expect(value_->is_string(), "a string");
  return value_->get_ref<const std::string&>();
}

GRAFT_IO bool JsonView::boolean() const {
  expect(value_->is_boolean(), "true or false");
  return value_->get<bool>();
}

GRAFT_IO std::int64_t JsonView::integer(std::int64_t lowest, std::int64_t highest) const {
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

GRAFT_IO double JsonView::number() const {
  expect(value_->is_number(), "a number");
  return value_->get<double>();
}

GRAFT_IO std::vector<std::string> JsonView::strings() const {
  std::vector<std::string> list;
  for (const JsonView& element : elements()) list.push_back(element.string());
  return list;
}

GRAFT_IO std::vector<std::int64_t> JsonView::integers(std::int64_t lowest,
                                                      std::int64_t highest) const {
  std::vector<std::int64_t> list;
  for (const JsonView& element : elements()) list.push_back(element.integer(lowest, highest));
  return list;
}

GRAFT_IO std::vector<double> JsonView::numbers() const {
  std::vector<double> list;
  for (const JsonView& element : elements()) list.push_back(element.number());
  return list;
}

GRAFT_IO std::string JsonView::string_or(std::string_view key, std::string_view otherwise) const {
  const auto view = find(key);
  return view ? view->string() : std::string(otherwise);
}

GRAFT_IO bool JsonView::boolean_or(std::string_view key, bool otherwise) const {
  const auto view = find(key);
  return view ? view->boolean() : otherwise;
}

GRAFT_IO std::int64_t JsonView::integer_or(std::string_view key, std::int64_t otherwise,
                                           std::int64_t lowest, std::int64_t highest) const {
  const auto view = find(key);
  return view ? view->integer(lowest, highest) : otherwise;
}

GRAFT_IO double JsonView::number_or(std::string_view key, double otherwise) const {
  const auto view = find(key);
  return view ? view->number() : otherwise;
}

GRAFT_IO std::vector<std::string> JsonView::strings_or(std::string_view key,
                                                       std::vector<std::string> otherwise) const {
  const auto view = find(key);
  return view ? view->strings() : std::move(otherwise);
}

GRAFT_IO JsonView JsonView::child(const Json& value, std::string_view key) const {
  return JsonView(value, file_, path_.empty() ? std::string(key) : concat(path_, ".", key));
}

GRAFT_IO std::string JsonView::describe() const {
  if (value_->is_object()) return "an object";
  if (value_->is_array()) return "an array";
  if (value_->is_null()) return "null";
  std::string text = value_->dump(-1, ' ', true, Json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57).append("...");
  return text;
}

GRAFT_IO void JsonView::expect(bool holds, std::string_view wanted) const {
  if (!holds) fail(concat("expected ", wanted, ", found ", describe()));
}

GRAFT_IO void for_each_json_line(std::string_view text, std::string_view source,
                                 const std::function<void(const JsonView&, Index)>& visit,
                                 JsonLimits limits) {
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
