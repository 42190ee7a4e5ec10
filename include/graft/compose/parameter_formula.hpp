#pragma once

#include <algorithm>
#include <cctype>
#include <cmath>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graft/base/error.hpp"

namespace graft::inline v0_1 {

/// The number of trained elements of a method as MethodInfo::parameters states it:
///
///     formula := [expression] {"," definition} [";" remark]
///     definition := name "=" expression | "once" expression
///
/// An expression has numbers, names, + - * / ^, parentheses, min, max, floor, ceil and root; what
/// stands side by side is multiplied: "2 d r + r + d". It counts for one site, what comes after
/// "once" for all sites together. Names are those of definitions, sizes of the site (in, out; d,
/// the width of the model), and fields of the configuration. A text that begins with its remark has
/// no closed form.
class ParameterFormula {
 public:
  using Values = std::map<std::string, double, std::less<>>;

  explicit ParameterFormula(std::string_view text) : text_(text) {
    text = text.substr(0, text.find(';'));
    int depth = 0;
    std::string_view rest = text;
    for (std::size_t i = 0, begin = 0; i <= text.size(); ++i) {
      if (i < text.size() && text[i] != ',') {
        depth += text[i] == '(' ? 1 : text[i] == ')' ? -1 : 0;
        continue;
      }
      if (i < text.size() && depth > 0) continue;
      rest = trimmed(text.substr(begin, i - begin));
      begin = i + 1;
      if (rest.empty()) continue;
      const auto equals = rest.find('=');
      if (equals != rest.npos)
        names_.emplace(trimmed(rest.substr(0, equals)), trimmed(rest.substr(equals + 1)));
      else if (rest.starts_with("once "))
        once_ = rest.substr(5);
      else if (site_.empty())
        site_ = rest;
      else
        fail("two expressions");
    }
  }
  /// True if there is an expression.
  bool closed() const { return !site_.empty() || !once_.empty(); }
  /// @throws ValueError for what is no expression and for names without a value
  double per_site(const Values& values) const { return value_of(site_, values); }
  double once(const Values& values) const { return value_of(once_, values); }

 private:
  static std::string_view trimmed(std::string_view text) {
    while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
    while (!text.empty() && text.back() == ' ') text.remove_suffix(1);
    return text;
  }
  [[noreturn]] void fail(const std::string& what) const {
    throw ValueError(concat("formula '", text_, "': ", what));
  }
  double value_of(std::string_view expression, const Values& values) const {
    if (expression.empty()) return 0;
    Reader reader{*this, values, expression};
    const double value = reader.sum();
    if (!reader.rest.empty()) fail(concat("unexpected '", reader.rest, "'"));
    return value;
  }

  struct Reader {
    const ParameterFormula& formula;
    const Values& values;
    std::string_view rest;

    char next() {
      rest = trimmed(rest);
      return rest.empty() ? '\0' : rest.front();
    }
    double sum() {
      double value = product();
      for (char c = next(); c == '+' || c == '-'; c = next()) {
        rest.remove_prefix(1);
        value += c == '+' ? product() : -product();
      }
      return value;
    }
    double product() {
      double value = power();
      for (char c = next(); c != '\0' && c != '+' && c != '-' && c != ')' && c != ','; c = next()) {
        if (c == '*' || c == '/') rest.remove_prefix(1);
        value = c == '/' ? value / power() : value * power();
      }
      return value;
    }
    double power() {
      const double value = atom();
      if (next() != '^') return value;
      rest.remove_prefix(1);
      return std::pow(value, power());
    }
    double atom() {
      const char c = next();
      if (c == '(') return parenthesis().at(0);
      std::size_t length = 0;
      const auto is = [&](auto&& test) {
        return length < rest.size() && test(static_cast<unsigned char>(rest[length]));
      };
      const auto digit = [](unsigned char d) { return std::isdigit(d) != 0 || d == '.'; };
      const auto letter = [](unsigned char l) { return std::isalnum(l) != 0 || l == '_'; };
      if (digit(static_cast<unsigned char>(c))) {
        while (is(digit)) ++length;
        const std::string number(rest.substr(0, length));
        rest.remove_prefix(length);
        return std::stod(number);
      }
      while (is(letter)) ++length;
      if (length == 0) formula.fail(concat("unexpected '", rest, "'"));
      const std::string name(rest.substr(0, length));
      rest.remove_prefix(length);
      if (next() == '(' &&
          (name == "min" || name == "max" || name == "floor" || name == "ceil" || name == "root")) {
        const auto list = parenthesis();
        if (name == "floor") return std::floor(list[0]);
        if (name == "ceil") return std::ceil(list[0]);
        if (name == "root") return std::sqrt(list[0]);
        return name == "min" ? *std::min_element(list.begin(), list.end())
                             : *std::max_element(list.begin(), list.end());
      }
      if (const auto own = formula.names_.find(name); own != formula.names_.end())
        return formula.value_of(own->second, values);
      const auto given = values.find(name);
      if (given == values.end()) formula.fail(concat("'", name, "' has no value"));
      return given->second;
    }
    std::vector<double> parenthesis() {
      rest.remove_prefix(1);
      std::vector<double> list{sum()};
      while (next() == ',') {
        rest.remove_prefix(1);
        list.push_back(sum());
      }
      if (next() != ')') formula.fail("a parenthesis is not closed");
      rest.remove_prefix(1);
      return list;
    }
  };

  std::string_view text_, site_, once_;
  std::map<std::string_view, std::string_view> names_;
};

}  // namespace graft::inline v0_1
