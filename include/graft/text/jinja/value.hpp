#pragma once

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "graft/base/error.hpp"
#include "graft/base/types.hpp"
#include "graft/text/unicode.hpp"

namespace graft::inline v0_1::text::jinja {

class Value;
using List = std::vector<Value>;
/// In the order of insertion, as in Python.
using Dict = std::vector<std::pair<std::string, Value>>;

struct Undefined {
  std::string name;
};
struct Callable;

/// A value of the template language. Lists and dictionaries are shared, not copied.
class Value {
 public:
  using Held =
      std::variant<Undefined, std::nullptr_t, bool, std::int64_t, double, std::string,
                   std::shared_ptr<List>, std::shared_ptr<Dict>, std::shared_ptr<const Callable>>;

  Value() = default;
  Value(std::nullptr_t) : held_(nullptr) {}
  Value(bool value) : held_(value) {}
  Value(std::int64_t value) : held_(value) {}
  Value(int value) : held_(static_cast<std::int64_t>(value)) {}
  Value(double value) : held_(value) {}
  Value(std::string value) : held_(std::move(value)) {}
  Value(std::string_view value) : held_(std::string(value)) {}
  Value(const char* value) : held_(std::string(value)) {}
  Value(List value) : held_(std::make_shared<List>(std::move(value))) {}
  Value(Dict value) : held_(std::make_shared<Dict>(std::move(value))) {}
  Value(std::shared_ptr<Dict> value) : held_(std::move(value)) {}
  Value(std::shared_ptr<const Callable> value) : held_(std::move(value)) {}
  static Value undefined(std::string_view name) {
    Value value;
    value.held_ = Undefined{std::string(name)};
    return value;
  }

  const Held& held() const { return held_; }
  template <class T>
  const T* get() const {
    return std::get_if<T>(&held_);
  }
  bool is_undefined() const { return get<Undefined>() != nullptr; }
  bool is_none() const { return get<std::nullptr_t>() != nullptr; }
  const std::string* string() const { return get<std::string>(); }
  List* list() const {
    const auto* held = get<std::shared_ptr<List>>();
    return held == nullptr ? nullptr : held->get();
  }
  Dict* dict() const {
    const auto* held = get<std::shared_ptr<Dict>>();
    return held == nullptr ? nullptr : held->get();
  }
  /// True for whole numbers; booleans count as 0 and 1.
  std::optional<std::int64_t> integer() const {
    if (const auto* number = get<std::int64_t>()) return *number;
    if (const auto* flag = get<bool>()) return *flag ? 1 : 0;
    return std::nullopt;
  }
  std::optional<double> number() const {
    if (const auto* real = get<double>()) return *real;
    if (const auto whole = integer()) return static_cast<double>(*whole);
    return std::nullopt;
  }

 private:
  Held held_;
};

struct Arguments {
  List positional;
  Dict named;

  /// The argument at a place or with a name.
  const Value* find(std::size_t place, std::string_view name) const {
    if (place < positional.size()) return &positional[place];
    for (const auto& [key, value] : named) {
      if (key == name) return &value;
    }
    return nullptr;
  }
};

struct Callable {
  std::function<Value(const Arguments&)> call;
};

inline Value make_function(std::function<Value(const Arguments&)> call) {
  return Value(std::make_shared<const Callable>(Callable{std::move(call)}));
}

inline bool truth(const Value& value) {
  return std::visit(
      [](const auto& held) -> bool {
        using T = std::decay_t<decltype(held)>;
        if constexpr (std::is_same_v<T, Undefined> || std::is_same_v<T, std::nullptr_t>) {
          return false;
        } else if constexpr (std::is_same_v<T, bool>) {
          return held;
        } else if constexpr (std::is_arithmetic_v<T>) {
          return held != T{};
        } else if constexpr (std::is_same_v<T, std::string>) {
          return !held.empty();
        } else if constexpr (std::is_same_v<T, std::shared_ptr<const Callable>>) {
          return true;
        } else {
          return !held->empty();
        }
      },
      value.held());
}

inline const Value* find_key(const Dict& dict, std::string_view key) {
  for (const auto& [name, value] : dict) {
    if (name == key) return &value;
  }
  return nullptr;
}

inline constexpr int kMaxNesting = 100;

inline bool equal(const Value& a, const Value& b, int depth = 0) {
  if (depth > kMaxNesting) throw ValueError("chat template: values nested too deeply");
  if (const auto x = a.number(), y = b.number(); x && y) return *x == *y;
  if (a.string() != nullptr && b.string() != nullptr) return *a.string() == *b.string();
  if (a.list() != nullptr && b.list() != nullptr) {
    return std::equal(a.list()->begin(), a.list()->end(), b.list()->begin(), b.list()->end(),
                      [&](const Value& x, const Value& y) { return equal(x, y, depth + 1); });
  }
  if (a.dict() != nullptr && b.dict() != nullptr) {
    if (a.dict()->size() != b.dict()->size()) return false;
    for (const auto& [key, value] : *a.dict()) {
      const Value* other = find_key(*b.dict(), key);
      if (other == nullptr || !equal(value, *other, depth + 1)) return false;
    }
    return true;
  }
  return (a.is_none() && b.is_none()) || (a.is_undefined() && b.is_undefined());
}

/// As Python writes it: with an exponent below 1e-4 and from 1e16 on.
inline std::string number_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  std::array<char, 40> buffer{};
  const double size = std::abs(value);
  const bool scientific = size != 0 && (size < 1e-4 || size >= 1e16);
  const auto end =
      std::to_chars(buffer.data(), buffer.data() + buffer.size(), value,
                    scientific ? std::chars_format::scientific : std::chars_format::fixed)
          .ptr;
  std::string text(buffer.data(), end);
  if (text.find_first_of(".e") == text.npos) text += ".0";
  return text;
}

/// JSON as Python's json.dumps writes it, without escaping what is not ASCII.
inline void append_json(const Value& value, std::string& out, std::int64_t indent, int depth = 0) {
  if (depth > kMaxNesting) throw ValueError("chat template: values nested too deeply");
  const auto line = [&](int level) {
    if (indent < 0) return;
    out.push_back('\n');
    out.append(static_cast<std::size_t>(indent * level), ' ');
  };
  const auto quoted = [&](std::string_view text) {
    out.push_back('"');
    for (const char c : text) {
      switch (c) {
        case '"':
          out += "\\\"";
          break;
        case '\\':
          out += "\\\\";
          break;
        case '\n':
          out += "\\n";
          break;
        case '\r':
          out += "\\r";
          break;
        case '\t':
          out += "\\t";
          break;
        case '\b':
          out += "\\b";
          break;
        case '\f':
          out += "\\f";
          break;
        default:
          if (static_cast<unsigned char>(c) < 0x20) {
            static constexpr std::string_view kHex = "0123456789abcdef";
            out += "\\u00";
            out += kHex[static_cast<unsigned char>(c) >> 4];
            out += kHex[static_cast<unsigned char>(c) & 15U];
          } else {
            out.push_back(c);
          }
      }
    }
    out.push_back('"');
  };
  const std::string_view comma = indent < 0 ? ", " : ",";
  if (const std::string* text = value.string()) {
    quoted(*text);
  } else if (const List* list = value.list()) {
    out.push_back('[');
    for (std::size_t i = 0; i < list->size(); ++i) {
      if (i > 0) out.append(comma);
      line(depth + 1);
      append_json((*list)[i], out, indent, depth + 1);
    }
    if (!list->empty()) line(depth);
    out.push_back(']');
  } else if (const Dict* dict = value.dict()) {
    out.push_back('{');
    for (std::size_t i = 0; i < dict->size(); ++i) {
      if (i > 0) out.append(comma);
      line(depth + 1);
      quoted((*dict)[i].first);
      out.append(": ");
      append_json((*dict)[i].second, out, indent, depth + 1);
    }
    if (!dict->empty()) line(depth);
    out.push_back('}');
  } else if (const bool* flag = value.get<bool>()) {
    out += *flag ? "true" : "false";
  } else if (value.is_none()) {
    out += "null";
  } else if (const auto whole = value.integer()) {
    out += std::to_string(*whole);
  } else if (const auto real = value.number()) {
    out += number_text(*real);
  } else {
    throw ValueError("chat template: tojson of a value that has no JSON form");
  }
}

/// What Python's str() gives; inside of lists, its repr().
inline void append_text(const Value& value, std::string& out, bool inside = false, int depth = 0) {
  if (depth > kMaxNesting) throw ValueError("chat template: values nested too deeply");
  if (const std::string* text = value.string()) {
    if (!inside) {
      out += *text;
      return;
    }
    const char quote = text->find('\'') != text->npos && text->find('"') == text->npos ? '"' : '\'';
    out.push_back(quote);
    for (const char c : *text) {
      if (c == '\n') {
        out += "\\n";
      } else if (c == '\t') {
        out += "\\t";
      } else if (c == '\r') {
        out += "\\r";
      } else {
        if (c == quote || c == '\\') out.push_back('\\');
        out.push_back(c);
      }
    }
    out.push_back(quote);
  } else if (const List* list = value.list()) {
    out.push_back('[');
    for (std::size_t i = 0; i < list->size(); ++i) {
      if (i > 0) out += ", ";
      append_text((*list)[i], out, true, depth + 1);
    }
    out.push_back(']');
  } else if (const Dict* dict = value.dict()) {
    out.push_back('{');
    for (std::size_t i = 0; i < dict->size(); ++i) {
      if (i > 0) out += ", ";
      append_text(Value((*dict)[i].first), out, true, depth + 1);
      out += ": ";
      append_text((*dict)[i].second, out, true, depth + 1);
    }
    out.push_back('}');
  } else if (const bool* flag = value.get<bool>()) {
    out += *flag ? "True" : "False";
  } else if (value.is_none()) {
    out += "None";
  } else if (const auto whole = value.integer()) {
    out += std::to_string(*whole);
  } else if (const auto real = value.number()) {
    out += number_text(*real);
  } else if (!value.is_undefined()) {
    out += "<function>";
  }
}
inline std::string to_string(const Value& value) {
  std::string out;
  append_text(value, out);
  return out;
}

}  // namespace graft::inline v0_1::text::jinja
