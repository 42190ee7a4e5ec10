#pragma once

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "graft/text/jinja/error.hpp"
#include "graft/text/jinja/strings.hpp"
#include "graft/text/jinja/value.hpp"

namespace graft::inline v0_1::text::jinja::detail {

/// Operators, methods, tests and filters, and the bounds of what a template may do.
class Builtins {
 protected:
  static constexpr std::size_t kMaxOutput = 64u << 20;

  void count(int line, std::size_t steps = 1) {
    steps_ += static_cast<std::int64_t>(steps);
    if (steps_ > kMaxSteps) fail(line, "the template does not come to an end");
  }
  void check_size(int line, std::size_t size) {
    count(line, size / 64);
    if (size > kMaxOutput) fail(line, "a text grows beyond all bounds");
  }

  static std::string describe(const Value& value) {
    if (const auto* undefined = value.get<Undefined>()) {
      return undefined->name.empty() ? "something undefined"
                                     : concat("'", undefined->name, "', which is undefined");
    }
    if (value.is_none()) return "none";
    if (value.string() != nullptr) return "a string";
    if (value.list() != nullptr) return "a list";
    if (value.dict() != nullptr) return "a mapping";
    if (value.number()) return "a number";
    return "a function";
  }
  const std::string& text_of(const Value& value, int line, std::string_view what) const {
    if (value.string() == nullptr)
      fail(line, concat(what, " needs a string, not ", describe(value)));
    return *value.string();
  }

  Value range(const Arguments& given) {
    std::int64_t bounds[3] = {0, 0, 1};
    const std::size_t n = given.positional.size();
    if (n == 0 || n > 3) throw ValueError("chat template: range() takes one to three numbers");
    for (std::size_t i = 0; i < n; ++i) {
      const auto number = given.positional[i].integer();
      if (!number) throw ValueError("chat template: range() takes whole numbers");
      bounds[n == 1 ? 1 : i] = *number;
    }
    if (bounds[2] == 0) throw ValueError("chat template: range() with step 0");
    List list;
    for (std::int64_t i = bounds[0]; bounds[2] > 0 ? i < bounds[1] : i > bounds[1];
         i += bounds[2]) {
      count(0);
      list.emplace_back(i);
      if (list.size() > 100'000) throw ValueError("chat template: range() is too long");
    }
    return list;
  }

  List items_of(const Value& value, int line) {
    List items;
    if (const List* list = value.list()) {
      items = *list;
    } else if (const Dict* dict = value.dict()) {
      for (const auto& entry : *dict) items.emplace_back(entry.first);
    } else if (const std::string* text = value.string()) {
      for (std::string& character : characters(*text)) items.emplace_back(std::move(character));
    } else if (!value.is_undefined()) {
      fail(line, concat("cannot go through ", describe(value)));
    }
    count(line, items.size());
    return items;
  }

  Value attribute(const Value& value, std::string_view name, int line) {
    if (const Dict* dict = value.dict()) {
      const Value* found = find_key(*dict, name);
      return found == nullptr ? Value::undefined(name) : *found;
    }
    if (value.is_undefined()) fail(line, concat("'.", name, "' of ", describe(value)));
    return Value::undefined(name);
  }
  Value item(const Value& value, const Value& key, int line) {
    if (const std::string* name = key.string()) return attribute(value, *name, line);
    const auto place = key.integer();
    if (!place) return Value::undefined("");
    const auto at = [&](std::size_t size) -> std::optional<std::size_t> {
      const auto n = static_cast<std::int64_t>(size);
      const std::int64_t i = *place < 0 ? *place + n : *place;
      if (i < 0 || i >= n) return std::nullopt;
      return static_cast<std::size_t>(i);
    };
    if (const List* list = value.list()) {
      const auto i = at(list->size());
      return i ? (*list)[*i] : Value::undefined("");
    }
    if (const std::string* text = value.string()) {
      const auto list = characters(*text);
      count(line, list.size());
      const auto i = at(list.size());
      return i ? Value(list[*i]) : Value::undefined("");
    }
    if (value.is_undefined()) fail(line, concat("an item of ", describe(value)));
    return Value::undefined("");
  }

  Value string_method(std::string_view name, const std::string& text, const Arguments& given,
                      int line) {
    count(line, text.size() / 64);
    if (name == "strip" || name == "lstrip" || name == "rstrip") {
      return strip(text, optional_text(given, 0, "chars", line), name != "rstrip",
                   name != "lstrip");
    }
    if (name == "split") {
      return split(text, optional_text(given, 0, "sep", line),
                   optional_integer(given, 1, "maxsplit", -1, line), line);
    }
    if (name == "startswith" || name == "endswith") {
      const auto fits = [&](const std::string& part) {
        return name == "startswith" ? text.starts_with(part) : text.ends_with(part);
      };
      const Value* part = given.find(0, "prefix");
      if (part != nullptr && part->list() != nullptr) {
        return std::any_of(part->list()->begin(), part->list()->end(),
                           [&](const Value& one) { return fits(text_of(one, line, name)); });
      }
      return fits(required_text(given, 0, "prefix", line));
    }
    if (name == "upper" || name == "lower") return map_case(text, name == "upper");
    if (name == "title" || name == "capitalize") return capitalize(text, name == "title");
    if (name == "replace") return replaced(text, given, line);
    if (name == "find") {
      const std::size_t at = text.find(required_text(given, 0, "sub", line));
      if (at == text.npos) return -1;
      return static_cast<std::int64_t>(count_code_points(std::string_view(text).substr(0, at)));
    }
    if (name == "count") {
      const std::string& part = required_text(given, 0, "sub", line);
      std::int64_t found = 0;
      for (std::size_t at = part.empty() ? text.npos : text.find(part); at != text.npos;
           at = text.find(part, at + part.size()))
        ++found;
      return found;
    }
    if (name == "join") {
      const Value* list = given.find(0, "iterable");
      return joined(list == nullptr ? Value() : *list, text, line);
    }
    if (name == "splitlines") {
      List lines;
      std::string_view rest = text;
      while (!rest.empty()) {
        const std::size_t end = std::min(rest.find('\n'), rest.size());
        lines.emplace_back(rest.substr(0, end));
        rest.remove_prefix(std::min(end + 1, rest.size()));
      }
      return lines;
    }
    fail(line, concat("the method '", name, "' of strings is not supported"));
  }
  Value replaced(const std::string& text, const Arguments& given, int line) {
    const std::string& from = required_text(given, 0, "old", line);
    const std::string& to = required_text(given, 1, "new", line);
    if (from.empty()) fail(line, "replace: nothing to look for");
    const std::int64_t most = optional_integer(given, 2, "count", -1, line);
    check_size(line, text.size() / from.size() * to.size());
    if (most < 0) return replace_all(text, from, to);
    std::string out;
    std::string_view rest = text;
    for (std::int64_t i = 0; i < most; ++i) {
      const std::size_t at = rest.find(from);
      if (at == rest.npos) break;
      out.append(rest.substr(0, at)).append(to);
      rest.remove_prefix(at + from.size());
    }
    return out.append(rest);
  }
  Value dict_method(std::string_view name, const Dict& dict, const Arguments& given, int line) {
    List list;
    count(line, dict.size());
    if (name == "get") {
      const Value* found = find_key(dict, required_text(given, 0, "key", line));
      if (found != nullptr) return *found;
      const Value* otherwise = given.find(1, "default");
      return otherwise == nullptr ? Value(nullptr) : *otherwise;
    }
    if (name == "items" || name == "keys" || name == "values") {
      for (const auto& [key, value] : dict) {
        if (name == "items") {
          list.emplace_back(List{Value(key), value});
        } else {
          list.push_back(name == "keys" ? Value(key) : value);
        }
      }
      return list;
    }
    fail(line, concat("the mapping has no function '", name, "'"));
  }
  Value list_method(std::string_view name, const List& list, const Arguments& given, int line) {
    const Value* value = given.find(0, "object");
    if (value == nullptr) fail(line, concat("an argument is missing: ", name));
    if (name == "index" || name == "count") {
      std::int64_t found = 0;
      for (std::size_t i = 0; i < list.size(); ++i) {
        if (!equal(list[i], *value)) continue;
        if (name == "index") return static_cast<std::int64_t>(i);
        ++found;
      }
      if (name == "count") return found;
      fail(line, "index: the value is not in the list");
    }
    fail(line, concat("the method '", name, "' of lists is not supported"));
  }

  /// left op right of an arithmetic operator or ~.
  Value operation(std::string_view op, const Value& left, const Value& right, int line) {
    if (op == "~") {
      std::string text = to_string(left) + to_string(right);
      check_size(line, text.size());
      return text;
    }
    if (op == "+" && left.string() != nullptr && right.string() != nullptr) {
      check_size(line, left.string()->size() + right.string()->size());
      return *left.string() + *right.string();
    }
    if (op == "+" && left.list() != nullptr && right.list() != nullptr) {
      List list = *left.list();
      list.insert(list.end(), right.list()->begin(), right.list()->end());
      count(line, list.size());
      return list;
    }
    if (op == "*" && left.string() != nullptr && right.integer()) {
      const auto times = static_cast<std::size_t>(std::max<std::int64_t>(*right.integer(), 0));
      if (!left.string()->empty() && times > kMaxOutput / left.string()->size())
        fail(line, "a text grows beyond all bounds");
      std::string text;
      for (std::size_t i = 0; i < times && !left.string()->empty(); ++i) text += *left.string();
      return text;
    }
    if (!left.number() || !right.number())
      fail(line, concat("'", op, "' between ", describe(left), " and ", describe(right)));
    return arithmetic(op, left, right, line);
  }

  bool contains(const Value& inside, const Value& value, int line) {
    if (const std::string* text = inside.string())
      return text->find(text_of(value, line, "'in'")) != text->npos;
    if (const List* list = inside.list()) {
      count(line, list->size());
      return std::any_of(list->begin(), list->end(),
                         [&](const Value& one) { return equal(one, value); });
    }
    if (const Dict* dict = inside.dict())
      return value.string() != nullptr && find_key(*dict, *value.string()) != nullptr;
    if (inside.is_undefined()) return false;
    fail(line, concat("'in' needs something to look in, not ", describe(inside)));
  }
  bool compare(std::string_view op, const Value& left, const Value& right, int line) {
    if (op == "==") return equal(left, right);
    if (op == "!=") return !equal(left, right);
    if (op == "in") return contains(right, left, line);
    if (op == "not in") return !contains(right, left, line);
    int order = 0;
    if (const auto x = left.number(), y = right.number(); x && y) {
      order = *x < *y ? -1 : *x > *y ? 1 : 0;
    } else if (left.string() != nullptr && right.string() != nullptr) {
      order = left.string()->compare(*right.string());
    } else {
      fail(line, concat("'", op, "' between ", describe(left), " and ", describe(right)));
    }
    if (op == "<") return order < 0;
    if (op == ">") return order > 0;
    return op == "<=" ? order <= 0 : order >= 0;
  }

  bool test(std::string_view name, const Value& value, const Arguments& given, int line) {
    const auto argument = [&]() -> const Value& {
      if (given.positional.empty()) fail(line, concat("the test '", name, "' needs a value"));
      return given.positional[0];
    };
    const bool* flag = value.get<bool>();
    if (name == "defined") return !value.is_undefined();
    if (name == "undefined") return value.is_undefined();
    if (name == "none") return value.is_none();
    if (name == "string") return value.string() != nullptr;
    if (name == "mapping") return value.dict() != nullptr;
    if (name == "sequence" || name == "iterable")
      return value.string() != nullptr || value.list() != nullptr || value.dict() != nullptr ||
             (name == "iterable" && value.is_undefined());
    if (name == "number") return value.number().has_value();
    if (name == "integer") return flag == nullptr && value.integer().has_value();
    if (name == "float") return value.get<double>() != nullptr;
    if (name == "boolean") return flag != nullptr;
    if (name == "true") return flag != nullptr && *flag;
    if (name == "false") return flag != nullptr && !*flag;
    if (name == "callable") return value.get<std::shared_ptr<const Callable>>() != nullptr;
    if (name == "equalto" || name == "eq" || name == "==") return equal(value, argument());
    if (name == "ne" || name == "!=") return !equal(value, argument());
    if (name == "in") return contains(argument(), value, line);
    if (name == "lt" || name == "gt" || name == "le" || name == "ge") {
      return compare(name == "lt"   ? "<"
                     : name == "gt" ? ">"
                     : name == "le" ? "<="
                                    : ">=",
                     value, argument(), line);
    }
    if (name == "odd" || name == "even" || name == "divisibleby") {
      const auto number = value.integer();
      const auto divisor =
          name == "divisibleby" ? argument().integer() : std::optional<std::int64_t>(2);
      if (!number || !divisor || *divisor == 0)
        fail(line, concat("the test '", name, "' needs whole numbers"));
      const bool divides = *divisor == -1 || *number % *divisor == 0;
      return name == "odd" ? !divides : divides;
    }
    fail(line, concat("the test '", name, "' is not supported"));
  }

  std::string joined(const Value& list, std::string_view separator, int line) {
    std::string out;
    bool first = true;
    for (const Value& one : items_of(list, line)) {
      if (!std::exchange(first, false)) out.append(separator);
      append_text(one, out);
    }
    check_size(line, out.size());
    return out;
  }

  /// Errors: ValueError for more arguments than `places` or with a name that is not `known`, which
  /// would change what the filter gives.
  static void expect_arguments(std::string_view filter, const Arguments& given, std::size_t places,
                               std::initializer_list<std::string_view> known, int line) {
    if (given.positional.size() > places)
      fail(line, concat("the filter '", filter, "' with ", given.positional.size(),
                        " arguments is not supported"));
    for (const auto& [key, value] : given.named)
      if (std::find(known.begin(), known.end(), key) == known.end())
        fail(line,
             concat("the argument '", key, "' of the filter '", filter, "' is not supported"));
  }

  Value filter(std::string_view name, const Value& value, const Arguments& given, int line) {
    const std::string* text = value.string();
    if (text != nullptr) count(line, text->size() / 64);
    if (name == "trim") {
      expect_arguments(name, given, 1, {"chars"}, line);
      return strip(to_string(value), optional_text(given, 0, "chars", line), true, true);
    }
    if (name == "length" || name == "count") {
      if (text != nullptr) return static_cast<std::int64_t>(count_code_points(*text));
      if (value.list() != nullptr) return static_cast<std::int64_t>(value.list()->size());
      if (value.dict() != nullptr) return static_cast<std::int64_t>(value.dict()->size());
      if (value.is_undefined()) return 0;
      fail(line, concat("the length of ", describe(value)));
    }
    if (name == "default" || name == "d") {
      expect_arguments(name, given, 2, {"default_value", "boolean"}, line);
      const Value* otherwise = given.find(0, "default_value");
      const Value* falsy = given.find(1, "boolean");
      const bool replace =
          value.is_undefined() || (falsy != nullptr && truth(*falsy) && !truth(value));
      return !replace ? value : otherwise == nullptr ? Value("") : *otherwise;
    }
    if (name == "upper" || name == "lower") return map_case(to_string(value), name == "upper");
    if (name == "capitalize" || name == "title")
      return capitalize(to_string(value), name == "title");
    if (name == "string") return to_string(value);
    if (name == "safe" || name == "forceescape") return value;
    if (name == "replace") return replaced(to_string(value), given, line);
    if (name == "tojson") {
      // That of transformers, whose first argument by place is ensure_ascii.
      expect_arguments(name, given, 0, {"indent", "ensure_ascii", "sort_keys", "separators"}, line);
      constexpr auto kByName = std::numeric_limits<std::size_t>::max();
      for (const std::string_view key : {"ensure_ascii", "sort_keys", "separators"})
        if (const Value* on = given.find(kByName, key); on != nullptr && truth(*on))
          fail(line, concat("the argument '", key, "' of the filter 'tojson' is not supported"));
      std::string out;
      append_json(value, out, optional_integer(given, kByName, "indent", -1, line));
      return out;
    }
    if (name == "join") {
      expect_arguments(name, given, 2, {"d", "attribute"}, line);
      const std::string* separator = optional_text(given, 0, "d", line);
      const Value* by = given.find(1, "attribute");
      if (by == nullptr) return joined(value, separator == nullptr ? "" : *separator, line);
      List list;
      for (const Value& one : items_of(value, line))
        list.push_back(attribute(one, text_of(*by, line, "join"), line));
      return joined(list, separator == nullptr ? "" : *separator, line);
    }
    if (name == "int" || name == "float") {
      expect_arguments(name, given, 1, {"default"}, line);
      return to_number(name == "int", value, given);
    }
    if (name == "abs") {
      if (const auto whole = value.integer();
          whole && *whole != std::numeric_limits<std::int64_t>::min())
        return *whole < 0 ? -*whole : *whole;
      if (const auto real = value.number()) return std::abs(*real);
      fail(line, concat("abs of ", describe(value)));
    }
    if (name == "items") {
      List list;
      if (value.is_undefined()) return list;
      if (value.dict() == nullptr) fail(line, concat("items of ", describe(value)));
      for (const auto& [key, held] : *value.dict()) list.emplace_back(List{Value(key), held});
      return list;
    }
    if (name == "first" || name == "last") {
      const List list = items_of(value, line);
      if (list.empty()) return Value::undefined(name);
      return name == "first" ? list.front() : list.back();
    }
    if (name == "list") return items_of(value, line);
    if (name == "reverse") {
      List list = items_of(value, line);
      std::reverse(list.begin(), list.end());
      if (text != nullptr) return joined(list, "", line);
      return list;
    }
    if (name == "unique") {
      expect_arguments(name, given, 1, {"case_sensitive"}, line);
      const Value* sensitive = given.find(0, "case_sensitive");
      const bool folds = sensitive == nullptr || !truth(*sensitive);
      List list, seen;
      for (const Value& one : items_of(value, line)) {
        count(line, list.size());
        const std::string* word = folds ? one.string() : nullptr;
        const Value key = word == nullptr ? one : Value(map_case(*word, false));
        if (contains(Value(seen), key, line)) continue;
        seen.push_back(key);
        list.push_back(one);
      }
      return list;
    }
    if (name == "map") {
      List list;
      constexpr auto kByName = std::numeric_limits<std::size_t>::max();
      const Value* by = given.find(kByName, "attribute");
      const Value* otherwise = given.find(kByName, "default");
      if (by != nullptr) expect_arguments(name, given, 0, {"attribute", "default"}, line);
      for (const Value& one : items_of(value, line)) {
        if (by != nullptr) {
          const Value found = attribute(one, text_of(*by, line, "map"), line);
          const bool replaced =
              found.is_undefined() && otherwise != nullptr && !otherwise->is_none();
          list.push_back(replaced ? *otherwise : found);
        } else {
          Arguments rest = given;
          if (rest.positional.empty()) fail(line, "map needs an attribute or a filter");
          rest.positional.erase(rest.positional.begin());
          const std::string inner = text_of(given.positional[0], line, "map");
          if (inner == "map") fail(line, "map of map is not supported");
          list.push_back(filter(inner, one, rest, line));
        }
      }
      return list;
    }
    if (name == "select" || name == "reject" || name == "selectattr" || name == "rejectattr")
      return selected(name, value, given, line);
    fail(line, concat("the filter '", name, "' is not supported"));
  }
  Value selected(std::string_view name, const Value& value, const Arguments& given, int line) {
    const bool by_attribute = name.ends_with("attr");
    const bool keep = name.starts_with("select");
    Arguments rest = given;
    std::string by;
    if (by_attribute) {
      if (rest.positional.empty()) fail(line, concat(name, " needs an attribute"));
      by = text_of(rest.positional[0], line, name);
      rest.positional.erase(rest.positional.begin());
    }
    std::string check;
    if (!rest.positional.empty()) {
      check = text_of(rest.positional[0], line, name);
      rest.positional.erase(rest.positional.begin());
    }
    List list;
    for (const Value& one : items_of(value, line)) {
      const Value subject = by_attribute ? attribute(one, by, line) : one;
      const bool holds = check.empty() ? truth(subject) : test(check, subject, rest, line);
      if (holds == keep) list.push_back(one);
    }
    return list;
  }
  Value to_number(bool whole, const Value& value, const Arguments& given) const {
    const Value* otherwise = given.find(0, "default");
    double number = 0;
    bool known = false;
    if (const auto held = value.number()) {
      number = *held;
      known = true;
    } else if (const std::string* text = value.string()) {
      const std::string clean = strip(*text, nullptr, true, true);
      const auto result = std::from_chars(clean.data(), clean.data() + clean.size(), number);
      known =
          !clean.empty() && result.ec == std::errc() && result.ptr == clean.data() + clean.size();
    }
    if (!known) return otherwise == nullptr ? (whole ? Value(0) : Value(0.0)) : *otherwise;
    if (!whole) return number;
    if (!(std::abs(number) < 9e18)) return 0;
    return static_cast<std::int64_t>(number);
  }

 private:
  static constexpr std::int64_t kMaxSteps = 5'000'000;

  const std::string* optional_text(const Arguments& given, std::size_t place, std::string_view name,
                                   int line) const {
    const Value* value = given.find(place, name);
    if (value == nullptr || value->is_none()) return nullptr;
    return &text_of(*value, line, name);
  }
  const std::string& required_text(const Arguments& given, std::size_t place, std::string_view what,
                                   int line) const {
    const std::string* text = optional_text(given, place, what, line);
    if (text == nullptr) fail(line, concat("an argument is missing: ", what));
    return *text;
  }
  std::int64_t optional_integer(const Arguments& given, std::size_t place, std::string_view name,
                                std::int64_t otherwise, int line) const {
    const Value* value = given.find(place, name);
    if (value == nullptr || value->is_none()) return otherwise;
    const auto number = value->integer();
    if (!number) fail(line, concat(name, " needs a whole number"));
    return *number;
  }

  static Value arithmetic(std::string_view op, const Value& left, const Value& right, int line) {
    const double x = *left.number(), y = *right.number();
    const auto a = left.integer(), b = right.integer();
    const bool zero = y == 0;
    if (zero && (op == "/" || op == "//" || op == "%")) fail(line, "division by zero");
    if (op == "/") return x / y;
    if (op == "**") {
      const double power = std::pow(x, y);
      if (a && b && *b >= 0 && std::abs(power) < 9e15) return static_cast<std::int64_t>(power);
      return power;
    }
    if (a && b) {
      std::int64_t result = 0;
      bool overflow = false;
      if (op == "+") overflow = __builtin_add_overflow(*a, *b, &result);
      if (op == "-") overflow = __builtin_sub_overflow(*a, *b, &result);
      if (op == "*") overflow = __builtin_mul_overflow(*a, *b, &result);
      if (op == "//" || op == "%") {
        overflow = *b == -1 && *a == std::numeric_limits<std::int64_t>::min();
        if (!overflow) {
          std::int64_t quotient = *a / *b, rest = *a % *b;
          if (rest != 0 && (rest < 0) != (*b < 0)) {  // towards minus infinity, as in Python
            --quotient;
            rest += *b;
          }
          result = op == "%" ? rest : quotient;
        }
      }
      if (overflow) fail(line, "a number is too large");
      return result;
    }
    if (op == "+") return x + y;
    if (op == "-") return x - y;
    if (op == "*") return x * y;
    const double quotient = std::floor(x / y);
    return op == "//" ? quotient : x - quotient * y;
  }

  std::int64_t steps_ = 0;
};

}  // namespace graft::inline v0_1::text::jinja::detail
