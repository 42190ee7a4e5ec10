#pragma once

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "graft/base/error.hpp"
#include "graft/base/types.hpp"
#include "graft/text/normalizer.hpp"
#include "graft/text/unicode.hpp"

/// A small interpreter of the Jinja template language, as far as chat templates use it: output, if,
/// for (with filter, else, unpacking, break, continue), set (also of namespace attributes and as a
/// block), macro, generation; Jinja's expressions with slices, tests and filters. Blocks are
/// trimmed as transformers does (trim_blocks, lstrip_blocks). Templates are untrusted: nesting,
/// steps and output are bounded, nothing outside of the given variables can be reached.
///
/// Errors: ValueError "chat template, line N: …", also for what raise_exception says and for parts
/// of the language that are left out (inheritance, include, import, call and filter blocks, …).
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

inline std::string number_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  std::array<char, 40> buffer{};
  const auto end = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value).ptr;
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

namespace detail {

[[noreturn]] inline void fail(int line, std::string_view reason) {
  throw ValueError(concat("chat template, line ", line, ": ", reason));
}

// ---- tokens ------------------------------------------------------------------------------------

struct Token {
  enum class Kind {
    data,
    begin_output,
    end_output,
    begin_block,
    end_block,
    name,
    string,
    integer,
    real,
    sign,
    end
  };
  Kind kind = Kind::end;
  std::string text;
  int line = 1;
};

/// Cuts a template into tokens; white space around blocks is trimmed here.
class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(source) {
    if (source_.ends_with('\n')) source_.remove_suffix(1);  // one, as Jinja does
  }

  std::vector<Token> run() {
    while (at_ < source_.size()) data();
    add(Token::Kind::end, "");
    return std::move(tokens_);
  }

 private:
  void add(Token::Kind kind, std::string_view text) {
    tokens_.push_back({kind, std::string(text), line_});
  }
  void advance(std::size_t count) {
    for (std::size_t i = 0; i < count; ++i) line_ += source_[at_ + i] == '\n' ? 1 : 0;
    at_ += count;
  }
  static bool is_blank(char c) { return c == ' ' || c == '\t'; }
  static bool is_space(char c) {
    return is_blank(c) || c == '\n' || c == '\r' || c == '\f' || c == '\v';
  }

  void data() {
    std::size_t open = at_;
    for (;; ++open) {
      open = source_.find('{', open);
      if (open == source_.npos || open + 1 >= source_.size()) {
        emit_data(source_.substr(at_));
        at_ = source_.size();
        return;
      }
      const char next = source_[open + 1];
      if (next == '{' || next == '%' || next == '#') break;
    }
    const char kind = source_[open + 1];
    const char mark = open + 2 < source_.size() ? source_[open + 2] : ' ';
    std::string_view text = source_.substr(at_, open - at_);
    if (mark == '-') {
      while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
    } else if (mark != '+' && kind != '{') {  // lstrip_blocks
      std::string_view shorter = text;
      while (!shorter.empty() && is_blank(shorter.back())) shorter.remove_suffix(1);
      const bool line_start = shorter.empty() ? at_line_start_ : shorter.back() == '\n';
      if (line_start) text = shorter;
    }
    emit_data(text);
    advance(open + 2 - at_);
    if (mark == '-' || mark == '+') advance(1);
    if (kind == '#') {
      const std::size_t end = source_.find("#}", at_);
      if (end == source_.npos) fail(line_, "a comment does not end");
      const bool strip = end > at_ && source_[end - 1] == '-';
      advance(end + 2 - at_);
      after_tag(strip, true);
      return;
    }
    const bool block = kind == '%';
    add(block ? Token::Kind::begin_block : Token::Kind::begin_output, "");
    const bool strip = expression(block ? "%}" : "}}");
    add(block ? Token::Kind::end_block : Token::Kind::end_output, "");
    after_tag(strip, block);
  }
  void emit_data(std::string_view text) {
    if (!text.empty()) add(Token::Kind::data, text);
  }
  /// White space after a tag: all of it after "-%}", the first line break after a block.
  void after_tag(bool strip, bool block) {
    at_line_start_ = false;
    if (strip) {
      while (at_ < source_.size() && is_space(source_[at_])) {
        at_line_start_ = source_[at_] == '\n';
        advance(1);
      }
    } else if (block && at_ < source_.size()) {
      if (source_.substr(at_, 2) == "\r\n") advance(1);
      if (source_[at_] == '\n') {
        advance(1);
        at_line_start_ = true;
      }
    }
  }

  /// Tokens up to the end of a tag; true if it ends with a minus.
  bool expression(std::string_view end) {
    int depth = 0;
    while (true) {
      while (at_ < source_.size() && is_space(source_[at_])) advance(1);
      if (at_ >= source_.size()) fail(line_, "a tag does not end");
      const std::string_view rest = source_.substr(at_);
      const char c = rest[0];
      if (depth == 0) {
        const bool minus = c == '-' || (c == '+' && end == "%}");
        if (rest.substr(minus ? 1 : 0).starts_with(end)) {
          advance(minus ? 3 : 2);
          return c == '-';
        }
      }
      if (std::isalpha(static_cast<unsigned char>(c)) != 0 || c == '_') {
        std::size_t length = 1;
        while (length < rest.size() &&
               (std::isalnum(static_cast<unsigned char>(rest[length])) != 0 || rest[length] == '_'))
          ++length;
        add(Token::Kind::name, rest.substr(0, length));
        advance(length);
      } else if (c >= '0' && c <= '9') {
        number(rest);
      } else if (c == '\'' || c == '"') {
        string(rest);
      } else {
        std::size_t length = 1;
        for (const std::string_view two : {"==", "!=", "<=", ">=", "//", "**"}) {
          if (rest.starts_with(two)) length = 2;
        }
        if (std::string_view("+-*/%~<>=!()[]{}.,:|").find(c) == std::string_view::npos)
          fail(line_, concat("unexpected '", std::string(1, c), "'"));
        if (c == '(' || c == '[' || c == '{') ++depth;
        if (c == ')' || c == ']' || c == '}') depth = std::max(0, depth - 1);
        add(Token::Kind::sign, rest.substr(0, length));
        advance(length);
      }
    }
  }
  void number(std::string_view rest) {
    std::size_t length = rest.find_first_not_of("0123456789_");
    length = std::min(length, rest.size());
    bool real = false;
    if (length + 1 < rest.size() && rest[length] == '.' && rest[length + 1] >= '0' &&
        rest[length + 1] <= '9') {
      real = true;
      ++length;
      while (length < rest.size() && rest[length] >= '0' && rest[length] <= '9') ++length;
    }
    std::size_t exponent = length;
    if (exponent < rest.size() && (rest[exponent] == 'e' || rest[exponent] == 'E')) {
      ++exponent;
      if (exponent < rest.size() && (rest[exponent] == '+' || rest[exponent] == '-')) ++exponent;
      const std::size_t digits = exponent;
      while (exponent < rest.size() && rest[exponent] >= '0' && rest[exponent] <= '9') ++exponent;
      if (exponent > digits) {
        real = true;
        length = exponent;
      }
    }
    std::string digits(rest.substr(0, length));
    std::erase(digits, '_');
    add(real ? Token::Kind::real : Token::Kind::integer, digits);
    advance(length);
  }
  void string(std::string_view rest) {
    std::string text;
    std::size_t i = 1;
    for (; i < rest.size() && rest[i] != rest[0]; ++i) {
      if (rest[i] != '\\' || i + 1 >= rest.size()) {
        text.push_back(rest[i]);
        continue;
      }
      const char escaped = rest[++i];
      constexpr std::string_view kLetters = "ntrbfv0", kControls("\n\t\r\b\f\v\0", 7);
      if (const auto at = kLetters.find(escaped); at != std::string_view::npos) {
        text.push_back(kControls[at]);
        continue;
      }
      switch (escaped) {
        case '\n':
          break;
        case '\\':
        case '\'':
        case '"':
          text.push_back(escaped);
          break;
        case 'x':
          append_utf8(text, hex(rest, i, 2));
          break;
        case 'u':
          append_utf8(text, hex(rest, i, 4));
          break;
        case 'U':
          append_utf8(text, hex(rest, i, 8));
          break;
        default:
          text.push_back('\\');
          text.push_back(escaped);
      }
    }
    if (i >= rest.size()) fail(line_, "a string does not end");
    add(Token::Kind::string, text);
    advance(i + 1);
  }
  char32_t hex(std::string_view rest, std::size_t& i, std::size_t digits) const {
    std::uint32_t value = 0;
    const std::string_view text = rest.substr(std::min(i + 1, rest.size()), digits);
    const auto result = std::from_chars(text.data(), text.data() + text.size(), value, 16);
    if (text.size() < digits || result.ptr != text.data() + digits || value > 0x10FFFF ||
        (value >= 0xD800 && value < 0xE000)) {
      fail(line_, "a wrong escape in a string");
    }
    i += digits;
    return value;
  }

  std::string_view source_;
  std::size_t at_ = 0;
  int line_ = 1;
  bool at_line_start_ = true;
  std::vector<Token> tokens_;
};

// ---- tree --------------------------------------------------------------------------------------

struct Expression {
  enum class Kind {
    literal,
    name,
    list,
    dict,
    attribute,
    item,
    slice,
    call,
    filter,
    test,
    unary,
    binary,
    compare,
    conditional
  };
  Kind kind = Kind::literal;
  int line = 1;
  std::string text;  ///< name, attribute, operator, filter, test
  Value value;
  std::vector<std::unique_ptr<Expression>> parts;  ///< operands; null where a slice has no bound
  std::vector<std::pair<std::string, std::unique_ptr<Expression>>> named;
  std::vector<std::string> operators;  ///< of a chain of comparisons
  bool negated = false;                ///< "is not"
};
using ExpressionPtr = std::unique_ptr<Expression>;

struct Statement {
  enum class Kind {
    text,
    output,
    conditional,
    loop,
    set,
    set_block,
    macro,
    generation,
    stop,
    skip
  };
  Kind kind = Kind::text;
  int line = 1;
  std::string text;                ///< data; name of a macro or of a namespace
  std::vector<std::string> names;  ///< targets of for and set, parameters of a macro
  std::vector<ExpressionPtr> expressions;
  std::vector<std::vector<std::unique_ptr<Statement>>> bodies;
};
using Block = std::vector<std::unique_ptr<Statement>>;

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  Block run() {
    Block block = body({});
    if (peek().kind != Token::Kind::end) fail(peek().line, "unexpected end of a block");
    return block;
  }

 private:
  using Kind = Token::Kind;

  const Token& peek(std::size_t ahead = 0) const {
    return tokens_[std::min(at_ + ahead, tokens_.size() - 1)];
  }
  const Token& next() {
    const Token& token = peek();
    if (at_ < tokens_.size()) ++at_;
    return token;
  }
  bool is_sign(std::string_view sign) const {
    return peek().kind == Kind::sign && peek().text == sign;
  }
  bool is_name(std::string_view name, std::size_t ahead = 0) const {
    return peek(ahead).kind == Kind::name && peek(ahead).text == name;
  }
  bool accept_sign(std::string_view sign) {
    const bool found = is_sign(sign);
    if (found) next();
    return found;
  }
  bool accept_name(std::string_view name) {
    const bool found = is_name(name);
    if (found) next();
    return found;
  }
  void expect_sign(std::string_view sign) {
    if (!accept_sign(sign)) fail(peek().line, concat("expected '", sign, "'"));
  }
  std::string expect_name() {
    if (peek().kind != Kind::name) fail(peek().line, "expected a name");
    return next().text;
  }
  void expect_end() {
    if (peek().kind != Kind::end_block) fail(peek().line, "expected the end of the block's tag");
    next();
  }

  /// Nesting of the tree is bounded, so that neither parsing nor running exhausts the stack.
  class Deeper {
   public:
    Deeper(int& depth, int line) : depth_(depth) {
      if (++depth_ > kMaxNesting) fail(line, "nested too deeply");
    }
    ~Deeper() { --depth_; }
    Deeper(const Deeper&) = delete;
    Deeper& operator=(const Deeper&) = delete;

   private:
    int& depth_;
  };

  bool at_block(std::initializer_list<std::string_view> names) const {
    return peek().kind == Kind::begin_block &&
           std::any_of(names.begin(), names.end(), [&](auto name) { return is_name(name, 1); });
  }

  /// Statements up to a block with one of the names, which is not consumed.
  Block body(std::initializer_list<std::string_view> ends) {
    const Deeper deeper(depth_, peek().line);
    Block block;
    while (peek().kind != Kind::end && !at_block(ends)) block.push_back(statement());
    if (ends.size() > 0 && peek().kind == Kind::end)
      fail(peek().line, concat("expected '", *(ends.end() - 1), "'"));
    return block;
  }

  std::unique_ptr<Statement> statement() {
    auto made = std::make_unique<Statement>();
    made->line = peek().line;
    const Token& first = next();
    if (first.kind == Kind::data) {
      made->text = first.text;
      return made;
    }
    if (first.kind == Kind::begin_output) {
      made->kind = Statement::Kind::output;
      made->expressions.push_back(tuple());
      if (peek().kind != Kind::end_output) fail(peek().line, "expected '}}'");
      next();
      return made;
    }
    if (first.kind != Kind::begin_block) fail(first.line, "unexpected token");
    const std::string name = expect_name();
    if (name == "if") {
      conditional(*made);
    } else if (name == "for") {
      loop(*made);
    } else if (name == "set") {
      set(*made);
    } else if (name == "macro") {
      macro(*made);
    } else if (name == "generation") {
      made->kind = Statement::Kind::generation;
      expect_end();
      made->bodies.push_back(body({"endgeneration"}));
      close();
    } else if (name == "break" || name == "continue") {
      if (loops_ == 0) fail(made->line, concat("'", name, "' outside of a loop"));
      made->kind = name == "break" ? Statement::Kind::stop : Statement::Kind::skip;
      expect_end();
    } else {
      fail(made->line, concat("'", name,
                              "' is not supported; supported: if, for, set, macro, "
                              "break, continue, generation"));
    }
    return made;
  }
  /// The closing tag, whose name `body` has seen.
  void close() {
    next();
    next();
    expect_end();
  }

  void conditional(Statement& made) {
    made.kind = Statement::Kind::conditional;
    made.expressions.push_back(expression());
    expect_end();
    made.bodies.push_back(body({"elif", "else", "endif"}));
    while (at_block({"elif"})) {
      next();
      next();
      made.expressions.push_back(expression());
      expect_end();
      made.bodies.push_back(body({"elif", "else", "endif"}));
    }
    if (at_block({"else"})) {
      close();
      made.bodies.push_back(body({"endif"}));
    }
    if (!at_block({"endif"})) fail(peek().line, "expected 'endif'");
    close();
  }
  std::vector<std::string> targets() {
    std::vector<std::string> names;
    const bool bracket = accept_sign("(");
    do {
      names.push_back(expect_name());
    } while (accept_sign(","));
    if (bracket) expect_sign(")");
    return names;
  }
  void loop(Statement& made) {
    made.kind = Statement::Kind::loop;
    made.names = targets();
    if (!accept_name("in")) fail(peek().line, "expected 'in'");
    made.expressions.push_back(disjunction());
    if (is_sign(",")) fail(peek().line, "a bare tuple after 'in' is not supported");
    made.expressions.push_back(accept_name("if") ? expression() : nullptr);
    if (is_name("recursive")) fail(peek().line, "recursive loops are not supported");
    expect_end();
    ++loops_;
    made.bodies.push_back(body({"else", "endfor"}));
    --loops_;
    if (at_block({"else"})) {
      close();
      made.bodies.push_back(body({"endfor"}));
    }
    if (!at_block({"endfor"})) fail(peek().line, "expected 'endfor'");
    close();
  }
  void set(Statement& made) {
    made.kind = Statement::Kind::set;
    made.names = targets();
    if (made.names.size() == 1 && accept_sign(".")) {
      made.text = made.names[0];
      made.names[0] = expect_name();
    }
    if (accept_sign("=")) {
      made.expressions.push_back(tuple());
      expect_end();
      return;
    }
    if (made.names.size() != 1 || !made.text.empty()) fail(peek().line, "expected '='");
    made.kind = Statement::Kind::set_block;
    expect_end();
    made.bodies.push_back(body({"endset"}));
    close();
  }
  void macro(Statement& made) {
    made.kind = Statement::Kind::macro;
    made.text = expect_name();
    expect_sign("(");
    while (!is_sign(")")) {
      made.names.push_back(expect_name());
      made.expressions.push_back(accept_sign("=") ? expression() : nullptr);
      if (!accept_sign(",")) break;
    }
    expect_sign(")");
    expect_end();
    const int outer = std::exchange(loops_, 0);
    made.bodies.push_back(body({"endmacro"}));
    loops_ = outer;
    close();
  }

  ExpressionPtr make(Expression::Kind kind, std::string_view text = {}) const {
    auto made = std::make_unique<Expression>();
    made->kind = kind;
    made->text = text;
    made->line = peek().line;
    return made;
  }
  /// An expression, or several with commas between them.
  ExpressionPtr tuple() {
    ExpressionPtr first = expression();
    if (!is_sign(",")) return first;
    ExpressionPtr list = make(Expression::Kind::list);
    list->parts.push_back(std::move(first));
    while (accept_sign(",")) {
      if (peek().kind == Kind::end_block || peek().kind == Kind::end_output) break;
      list->parts.push_back(expression());
    }
    return list;
  }
  ExpressionPtr expression() {
    const Deeper deeper(depth_, peek().line);
    ExpressionPtr value = disjunction();
    while (accept_name("if")) {
      ExpressionPtr made = make(Expression::Kind::conditional);
      made->parts.push_back(disjunction());
      made->parts.push_back(std::move(value));
      made->parts.push_back(accept_name("else") ? expression() : nullptr);
      value = std::move(made);
      wide(value);
    }
    return value;
  }
  ExpressionPtr binary(std::string_view text, ExpressionPtr left, ExpressionPtr right) const {
    ExpressionPtr made = make(Expression::Kind::binary, text);
    made->parts.push_back(std::move(left));
    made->parts.push_back(std::move(right));
    return made;
  }
  /// Chains such as a + b + c nest to the left, without recursion in the parser: bound them too.
  void wide(const ExpressionPtr& made) {
    if (++chain_ > kMaxChain) fail(made->line, "too many operators");
  }
  ExpressionPtr disjunction() {
    ExpressionPtr left = conjunction();
    while (accept_name("or")) {
      left = binary("or", std::move(left), conjunction());
      wide(left);
    }
    return left;
  }
  ExpressionPtr conjunction() {
    ExpressionPtr left = negation();
    while (accept_name("and")) {
      left = binary("and", std::move(left), negation());
      wide(left);
    }
    return left;
  }
  ExpressionPtr negation() {
    const Deeper deeper(depth_, peek().line);
    if (!accept_name("not")) return comparison();
    ExpressionPtr made = make(Expression::Kind::unary, "not");
    made->parts.push_back(negation());
    return made;
  }
  ExpressionPtr comparison() {
    ExpressionPtr left = sum();
    ExpressionPtr made;
    while (true) {
      std::string op;
      if (peek().kind == Kind::sign) {
        for (const std::string_view sign : {"==", "!=", "<=", ">=", "<", ">"}) {
          if (is_sign(sign)) op = sign;
        }
      }
      if (is_name("in")) op = "in";
      if (is_name("not") && is_name("in", 1)) op = "not in";
      if (op.empty()) break;
      next();
      if (op == "not in") next();
      if (!made) {
        made = make(Expression::Kind::compare);
        made->parts.push_back(std::move(left));
      }
      made->operators.push_back(op);
      made->parts.push_back(sum());
    }
    return made ? std::move(made) : std::move(left);
  }
  ExpressionPtr sum() {
    ExpressionPtr left = concatenation();
    while (is_sign("+") || is_sign("-")) {
      const std::string op = next().text;
      left = binary(op, std::move(left), concatenation());
      wide(left);
    }
    return left;
  }
  ExpressionPtr concatenation() {
    ExpressionPtr left = product();
    while (accept_sign("~")) {
      left = binary("~", std::move(left), product());
      wide(left);
    }
    return left;
  }
  ExpressionPtr product() {
    ExpressionPtr left = power();
    while (is_sign("*") || is_sign("/") || is_sign("//") || is_sign("%")) {
      const std::string op = next().text;
      left = binary(op, std::move(left), power());
      wide(left);
    }
    return left;
  }
  ExpressionPtr power() {
    ExpressionPtr left = unary(true);
    while (accept_sign("**")) {
      left = binary("**", std::move(left), unary(true));
      wide(left);
    }
    return left;
  }
  ExpressionPtr unary(bool with_filter) {
    const Deeper deeper(depth_, peek().line);
    ExpressionPtr made;
    if (is_sign("-") || is_sign("+")) {
      made = make(Expression::Kind::unary, peek().text);
      next();
      made->parts.push_back(unary(false));
    } else {
      made = primary();
    }
    made = postfix(std::move(made));
    return with_filter ? filtered(std::move(made)) : std::move(made);
  }
  ExpressionPtr primary() {
    const Token token = next();
    ExpressionPtr made = make(Expression::Kind::literal);
    made->line = token.line;
    switch (token.kind) {
      case Kind::name:
        if (token.text == "true" || token.text == "True") {
          made->value = true;
        } else if (token.text == "false" || token.text == "False") {
          made->value = false;
        } else if (token.text == "none" || token.text == "None") {
          made->value = nullptr;
        } else {
          made->kind = Expression::Kind::name;
          made->text = token.text;
        }
        return made;
      case Kind::string: {
        std::string text = token.text;
        while (peek().kind == Kind::string) text += next().text;
        made->value = std::move(text);
        return made;
      }
      case Kind::integer: {
        std::int64_t number = 0;
        const char* end = token.text.data() + token.text.size();
        if (std::from_chars(token.text.data(), end, number).ec != std::errc())
          fail(token.line, "a number is too large");
        made->value = number;
        return made;
      }
      case Kind::real: {
        double number = 0;
        std::from_chars(token.text.data(), token.text.data() + token.text.size(), number);
        made->value = number;
        return made;
      }
      case Kind::sign:
        if (token.text == "(") return parenthesis();
        if (token.text == "[") {
          made->kind = Expression::Kind::list;
          while (!is_sign("]")) {
            made->parts.push_back(expression());
            if (!accept_sign(",")) break;
          }
          expect_sign("]");
          return made;
        }
        if (token.text == "{") {
          made->kind = Expression::Kind::dict;
          while (!is_sign("}")) {
            made->parts.push_back(expression());
            expect_sign(":");
            made->parts.push_back(expression());
            if (!accept_sign(",")) break;
          }
          expect_sign("}");
          return made;
        }
        [[fallthrough]];
      default:
        fail(token.line, concat("unexpected '", token.text, "'"));
    }
  }
  ExpressionPtr parenthesis() {
    ExpressionPtr made = make(Expression::Kind::list);
    bool single = true;
    while (!is_sign(")")) {
      made->parts.push_back(expression());
      if (!accept_sign(",")) break;
      single = false;
    }
    expect_sign(")");
    return single && made->parts.size() == 1 ? std::move(made->parts[0]) : std::move(made);
  }
  ExpressionPtr postfix(ExpressionPtr value) {
    while (true) {
      if (accept_sign(".")) {
        ExpressionPtr made = make(Expression::Kind::attribute);
        if (peek().kind == Kind::integer) {
          made->kind = Expression::Kind::item;
          ExpressionPtr index = primary();
          made->parts.push_back(std::move(value));
          made->parts.push_back(std::move(index));
        } else {
          made->text = expect_name();
          made->parts.push_back(std::move(value));
        }
        value = std::move(made);
      } else if (accept_sign("[")) {
        value = subscript(std::move(value));
      } else if (is_sign("(")) {
        ExpressionPtr made = make(Expression::Kind::call);
        made->parts.push_back(std::move(value));
        arguments(*made);
        value = std::move(made);
      } else {
        return value;
      }
      wide(value);
    }
  }
  ExpressionPtr subscript(ExpressionPtr value) {
    ExpressionPtr made = make(Expression::Kind::item);
    made->parts.push_back(std::move(value));
    const auto bound = [&]() -> ExpressionPtr {
      return is_sign(":") || is_sign("]") ? nullptr : expression();
    };
    ExpressionPtr first = bound();
    if (is_sign(":")) {
      made->kind = Expression::Kind::slice;
      made->parts.push_back(std::move(first));
      for (int i = 0; i < 2; ++i) made->parts.push_back(accept_sign(":") ? bound() : nullptr);
    } else {
      if (!first) fail(peek().line, "expected an index");
      made->parts.push_back(std::move(first));
    }
    expect_sign("]");
    return made;
  }
  void arguments(Expression& made) {
    expect_sign("(");
    while (!is_sign(")")) {
      if (is_sign("*") || is_sign("**")) fail(peek().line, "unpacked arguments are not supported");
      const bool named =
          peek().kind == Kind::name && peek(1).kind == Kind::sign && peek(1).text == "=";
      if (named) {
        std::string name = expect_name();
        next();
        made.named.emplace_back(std::move(name), expression());
      } else {
        made.parts.push_back(expression());
      }
      if (!accept_sign(",")) break;
    }
    expect_sign(")");
  }
  /// Filters and tests after a value.
  ExpressionPtr filtered(ExpressionPtr value) {
    while (true) {
      if (accept_sign("|")) {
        ExpressionPtr made = make(Expression::Kind::filter, expect_name());
        made->parts.push_back(std::move(value));
        if (is_sign("(")) arguments(*made);
        value = std::move(made);
      } else if (accept_name("is")) {
        ExpressionPtr made = make(Expression::Kind::test);
        made->negated = accept_name("not");
        made->text = expect_name();
        made->parts.push_back(std::move(value));
        if (is_sign("(")) {
          arguments(*made);
        } else if (test_has_argument()) {
          made->parts.push_back(postfix(primary()));
        }
        value = std::move(made);
      } else if (is_sign("(")) {
        ExpressionPtr made = make(Expression::Kind::call);
        made->parts.push_back(std::move(value));
        arguments(*made);
        value = std::move(made);
      } else {
        return value;
      }
      wide(value);
    }
  }
  bool test_has_argument() const {
    const Token& token = peek();
    if (token.kind == Kind::string || token.kind == Kind::integer || token.kind == Kind::real)
      return true;
    if (token.kind == Kind::sign) return token.text == "[" || token.text == "{";
    if (token.kind != Kind::name) return false;
    for (const std::string_view word :
         {"else", "or", "and", "if", "is", "in", "not", "recursive"}) {
      if (token.text == word) return false;
    }
    return true;
  }

  static constexpr int kMaxChain = 4000;  // operators in one template
  std::vector<Token> tokens_;
  std::size_t at_ = 0;
  int depth_ = 0;
  int loops_ = 0;
  int chain_ = 0;
};

// ---- strings and slices ------------------------------------------------------------------------

inline std::string strip(std::string_view text, const std::string* set, bool left, bool right) {
  std::vector<std::pair<std::size_t, std::size_t>> points;  // offset and length
  std::vector<bool> drop;
  for_each_code_point(text, [&](char32_t c, std::size_t offset, std::size_t length) {
    points.emplace_back(offset, length);
    // Python's str.strip also takes the separators U+001C to U+001F.
    const bool space = is_white_space(c) || (c >= 0x1C && c <= 0x1F);
    drop.push_back(set == nullptr ? space
                                  : set->find(text.substr(offset, length)) != std::string::npos);
  });
  std::size_t begin = 0, end = points.size();
  while (left && begin < end && drop[begin]) ++begin;
  while (right && end > begin && drop[end - 1]) --end;
  if (begin == end) return {};
  const std::size_t from = points[begin].first;
  return std::string(text.substr(from, points[end - 1].first + points[end - 1].second - from));
}

inline std::vector<std::string> characters(std::string_view text) {
  std::vector<std::string> list;
  for_each_code_point(text, [&](char32_t, std::size_t offset, std::size_t length) {
    list.emplace_back(text.substr(offset, length));
  });
  return list;
}

/// The places that a Python slice takes of a sequence.
inline std::vector<std::size_t> slice_places(std::size_t size, std::optional<std::int64_t> start,
                                             std::optional<std::int64_t> stop, std::int64_t step) {
  const auto count = static_cast<std::int64_t>(size);
  const auto clamp = [&](std::int64_t place) {
    if (place < 0) place = place < -count ? -1 : place + count;
    if (step < 0) return std::clamp<std::int64_t>(place, -1, count - 1);
    return std::clamp<std::int64_t>(place, 0, count);
  };
  std::int64_t at = start ? clamp(*start) : step > 0 ? 0 : count - 1;
  const std::int64_t end = stop ? clamp(*stop) : step > 0 ? count : -1;
  std::vector<std::size_t> places;
  while (step > 0 ? at < end : at > end) {
    places.push_back(static_cast<std::size_t>(at));
    if (step > count || step < -count) break;
    at += step;
  }
  return places;
}

inline std::string map_case(std::string_view text, bool upper) {
  std::string out;
  for_each_code_point(text, [&](char32_t c, std::size_t, std::size_t) {
    const auto point = static_cast<UChar32>(c);
    append_utf8(out, static_cast<char32_t>(upper ? u_toupper(point) : u_tolower(point)));
  });
  return out;
}

/// Upper case at the beginning (of each word, with `title`), lower case after it.
inline std::string capitalize(std::string_view text, bool title) {
  std::string out;
  bool start = true;
  for_each_code_point(text, [&](char32_t c, std::size_t, std::size_t) {
    const auto point = static_cast<UChar32>(c);
    append_utf8(out, static_cast<char32_t>(start ? u_totitle(point) : u_tolower(point)));
    start = title && u_isalpha(point) == 0;
  });
  return out;
}

inline Value split(std::string_view text, const std::string* separator, std::int64_t most,
                   int line) {
  List parts;
  if (most < 0) most = std::numeric_limits<std::int64_t>::max();
  if (separator != nullptr) {
    if (separator->empty()) fail(line, "split: empty separator");
    std::size_t at = text.find(*separator);
    for (; at != text.npos && static_cast<std::int64_t>(parts.size()) < most;
         at = text.find(*separator)) {
      parts.emplace_back(text.substr(0, at));
      text.remove_prefix(at + separator->size());
    }
    parts.emplace_back(text);
    return parts;
  }
  std::string rest = strip(text, nullptr, true, false);
  while (!rest.empty()) {
    std::size_t end = rest.size();
    if (static_cast<std::int64_t>(parts.size()) < most) {
      for_each_code_point(rest, [&](char32_t c, std::size_t offset, std::size_t) {
        if (is_white_space(c)) end = std::min(end, offset);
      });
    }
    parts.emplace_back(std::string_view(rest).substr(0, end));
    rest = strip(std::string_view(rest).substr(end), nullptr, true, false);
  }
  return parts;
}

// ---- running -----------------------------------------------------------------------------------

/// Positions [begin, end) of the output.
struct OutputRange {
  std::size_t begin;
  std::size_t end;
};

class Interpreter {
 public:
  explicit Interpreter(Dict variables) {
    scopes_.emplace_back();
    define("namespace", make_function([this](const Arguments& given) {
             namespaces_.push_back(std::make_shared<Dict>(given.named));
             return Value(namespaces_.back());
           }));
    define("dict", make_function([](const Arguments& given) { return Value(given.named); }));
    define("range", make_function([this](const Arguments& given) { return range(given); }));
    define("raise_exception", make_function([](const Arguments& given) -> Value {
             const Value* message = given.find(0, "message");
             throw ValueError(
                 concat("chat template: ", message == nullptr ? "" : to_string(*message)));
           }));
    for (auto& [name, value] : variables) define(name, std::move(value));
  }

  Interpreter(const Interpreter&) = delete;
  Interpreter& operator=(const Interpreter&) = delete;
  ~Interpreter() {
    for (const auto& space : namespaces_) space->clear();  // one may hold itself
  }

  void run(const Block& block) { execute(block); }
  const std::string& output() const { return output_; }
  const std::vector<OutputRange>& generated() const { return generated_; }

 private:
  enum class Flow { normal, stop, skip };
  using Kind = Expression::Kind;
  static constexpr std::size_t kMaxOutput = 64u << 20;
  static constexpr std::int64_t kMaxSteps = 5'000'000;

  void define(std::string_view name, Value value) {
    scopes_.back().insert_or_assign(std::string(name), std::move(value));
  }
  void count(int line, std::size_t steps = 1) {
    steps_ += static_cast<std::int64_t>(steps);
    if (steps_ > kMaxSteps) fail(line, "the template does not come to an end");
  }
  void check_size(int line, std::size_t size) {
    count(line, size / 64);
    if (size > kMaxOutput) fail(line, "a text grows beyond all bounds");
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

  Flow execute(const Block& block) {
    for (const auto& statement : block) {
      count(statement->line);
      const Flow flow = execute(*statement);
      if (flow != Flow::normal) return flow;
    }
    return Flow::normal;
  }

  Flow execute(const Statement& statement) {
    switch (statement.kind) {
      case Statement::Kind::text:
        write(statement.line, statement.text);
        return Flow::normal;
      case Statement::Kind::output:
        write(statement.line, to_string(evaluate(*statement.expressions[0])));
        return Flow::normal;
      case Statement::Kind::conditional:
        for (std::size_t i = 0; i < statement.expressions.size(); ++i) {
          if (truth(evaluate(*statement.expressions[i]))) return execute(statement.bodies[i]);
        }
        if (statement.bodies.size() > statement.expressions.size())
          return execute(statement.bodies.back());
        return Flow::normal;
      case Statement::Kind::loop:
        return loop(statement);
      case Statement::Kind::set:
        assign(statement, evaluate(*statement.expressions[0]));
        break;
      case Statement::Kind::set_block: {
        std::string outer = std::exchange(output_, {});
        const Flow flow = execute(statement.bodies[0]);
        assign(statement, Value(std::exchange(output_, std::move(outer))));
        return flow;
      }
      case Statement::Kind::macro:
        macro(statement);
        break;
      case Statement::Kind::generation: {
        const std::size_t begin = output_.size();
        const Flow flow = execute(statement.bodies[0]);
        generated_.push_back({begin, output_.size()});
        return flow;
      }
      case Statement::Kind::stop:
        return Flow::stop;
      case Statement::Kind::skip:
        return Flow::skip;
    }
    return Flow::normal;
  }
  void write(int line, std::string_view text) {
    output_.append(text);
    count(line, text.size() / 64);
    if (output_.size() > kMaxOutput) fail(line, "the text grows beyond all bounds");
  }

  void assign(const Statement& statement, const Value& value) {
    if (!statement.text.empty()) {  // attribute of a namespace
      const Value* space = lookup(statement.text);
      const Dict* target = space == nullptr ? nullptr : space->dict();
      const bool known = std::any_of(namespaces_.begin(), namespaces_.end(),
                                     [&](const auto& one) { return one.get() == target; });
      if (!known) fail(statement.line, concat("'", statement.text, "' is no namespace"));
      Dict& dict = *space->dict();
      for (auto& [key, held] : dict) {
        if (key == statement.names[0]) {
          held = value;
          return;
        }
      }
      dict.emplace_back(statement.names[0], value);
      return;
    }
    unpack(statement.line, statement.names, value);
  }
  void unpack(int line, const std::vector<std::string>& names, const Value& value) {
    if (names.size() == 1) return define(names[0], value);
    const List* list = value.list();
    if (list == nullptr || list->size() != names.size())
      fail(line, concat("cannot unpack into ", names.size(), " names"));
    for (std::size_t i = 0; i < names.size(); ++i) define(names[i], (*list)[i]);
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

  Flow loop(const Statement& statement) {
    List items = items_of(evaluate(*statement.expressions[0]), statement.line);
    if (statement.expressions[1]) {
      List kept;
      for (const Value& item : items) {
        scopes_.emplace_back();
        unpack(statement.line, statement.names, item);
        if (truth(evaluate(*statement.expressions[1]))) kept.push_back(item);
        scopes_.pop_back();
      }
      items.swap(kept);
    }
    if (items.empty()) {
      return statement.bodies.size() > 1 ? execute(statement.bodies[1]) : Flow::normal;
    }
    const auto size = static_cast<std::int64_t>(items.size());
    for (std::int64_t i = 0; i < size; ++i) {
      count(statement.line);
      scopes_.emplace_back();
      const auto at = static_cast<std::size_t>(i);
      unpack(statement.line, statement.names, items[at]);
      Dict loop{{"index", i + 1},       {"index0", i},
                {"revindex", size - i}, {"revindex0", size - i - 1},
                {"first", i == 0},      {"last", i + 1 == size},
                {"length", size}};
      loop.emplace_back("previtem", i > 0 ? items[at - 1] : Value::undefined("loop.previtem"));
      loop.emplace_back("nextitem",
                        i + 1 < size ? items[at + 1] : Value::undefined("loop.nextitem"));
      loop.emplace_back(
          "cycle", make_function([i](const Arguments& given) {
            const auto choices = static_cast<std::int64_t>(given.positional.size());
            return choices == 0 ? Value() : given.positional[static_cast<std::size_t>(i % choices)];
          }));
      define("loop", Value(std::move(loop)));
      const Flow flow = execute(statement.bodies[0]);
      scopes_.pop_back();
      if (flow == Flow::stop) break;
    }
    return Flow::normal;
  }

  void macro(const Statement& statement) {
    define(statement.text, make_function([this, &statement](const Arguments& given) -> Value {
             if (++calls_ > 30) fail(statement.line, "macros call each other too deeply");
             if (given.positional.size() > statement.names.size())
               fail(statement.line, concat("too many arguments for '", statement.text, "'"));
             // A macro sees the variables of the template's top level only.
             std::vector<Scope> hidden(std::make_move_iterator(scopes_.begin() + 1),
                                       std::make_move_iterator(scopes_.end()));
             scopes_.resize(1);
             scopes_.emplace_back();
             for (std::size_t i = 0; i < statement.names.size(); ++i) {
               const Value* value = given.find(i, statement.names[i]);
               if (value != nullptr) {
                 define(statement.names[i], *value);
               } else if (statement.expressions[i]) {
                 define(statement.names[i], evaluate(*statement.expressions[i]));
               } else {
                 define(statement.names[i], Value::undefined(statement.names[i]));
               }
             }
             std::string outer = std::exchange(output_, {});
             execute(statement.bodies[0]);
             std::string text = std::exchange(output_, std::move(outer));
             scopes_.resize(1);
             scopes_.insert(scopes_.end(), std::make_move_iterator(hidden.begin()),
                            std::make_move_iterator(hidden.end()));
             --calls_;
             return text;
           }));
  }

  const Value* lookup(std::string_view name) const {
    for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
      const auto found = scope->find(name);
      if (found != scope->end()) return &found->second;
    }
    return nullptr;
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

  Value evaluate(const Expression& e) {
    count(e.line);
    switch (e.kind) {
      case Kind::literal:
        return e.value;
      case Kind::name: {
        const Value* found = lookup(e.text);
        if (found == nullptr) return Value::undefined(e.text);
        if (found->string() != nullptr) count(e.line, found->string()->size() / 64);
        return *found;
      }
      case Kind::list: {
        List list;
        for (const auto& part : e.parts) list.push_back(evaluate(*part));
        return list;
      }
      case Kind::dict: {
        Dict dict;
        for (std::size_t i = 0; i < e.parts.size(); i += 2) {
          std::string key = to_string(evaluate(*e.parts[i]));
          dict.emplace_back(std::move(key), evaluate(*e.parts[i + 1]));
        }
        return dict;
      }
      case Kind::attribute:
        return attribute(evaluate(*e.parts[0]), e.text, e.line);
      case Kind::item:
        return item(evaluate(*e.parts[0]), evaluate(*e.parts[1]), e.line);
      case Kind::slice:
        return slice(e);
      case Kind::call:
        return call(e);
      case Kind::filter: {
        const Value value = evaluate(*e.parts[0]);
        return filter(e.text, value, arguments(e), e.line);
      }
      case Kind::test: {
        const Value value = evaluate(*e.parts[0]);
        return test(e.text, value, arguments(e), e.line) != e.negated;
      }
      case Kind::unary: {
        const Value value = evaluate(*e.parts[0]);
        if (e.text == "not") return !truth(value);
        if (const auto whole = value.integer()) {
          return e.text == "-"
                     ? Value(static_cast<std::int64_t>(0 - static_cast<std::uint64_t>(*whole)))
                     : Value(*whole);
        }
        if (const auto real = value.number()) return e.text == "-" ? -*real : *real;
        fail(e.line, concat("'", e.text, "' needs a number, not ", describe(value)));
      }
      case Kind::binary:
        return binary(e);
      case Kind::compare: {
        Value left = evaluate(*e.parts[0]);
        for (std::size_t i = 0; i < e.operators.size(); ++i) {
          Value right = evaluate(*e.parts[i + 1]);
          if (!compare(e.operators[i], left, right, e.line)) return false;
          left = std::move(right);
        }
        return true;
      }
      case Kind::conditional:
        if (truth(evaluate(*e.parts[0]))) return evaluate(*e.parts[1]);
        return e.parts[2] ? evaluate(*e.parts[2]) : Value();
    }
    return {};
  }

  Arguments arguments(const Expression& e) {
    Arguments given;
    for (std::size_t i = 1; i < e.parts.size(); ++i)
      given.positional.push_back(evaluate(*e.parts[i]));
    for (const auto& [name, value] : e.named) given.named.emplace_back(name, evaluate(*value));
    return given;
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
  Value slice(const Expression& e) {
    const Value value = evaluate(*e.parts[0]);
    std::optional<std::int64_t> bounds[3];
    for (std::size_t i = 0; i < 3; ++i) {
      if (!e.parts[i + 1]) continue;
      const Value bound = evaluate(*e.parts[i + 1]);
      if (bound.is_none()) continue;
      bounds[i] = bound.integer();
      if (!bounds[i]) fail(e.line, concat("a slice needs numbers, not ", describe(bound)));
    }
    const std::int64_t step = bounds[2].value_or(1);
    if (step == 0) fail(e.line, "a slice with step 0");
    if (const List* list = value.list()) {
      List out;
      for (const std::size_t i : slice_places(list->size(), bounds[0], bounds[1], step))
        out.push_back((*list)[i]);
      count(e.line, out.size());
      return out;
    }
    if (const std::string* text = value.string()) {
      const auto list = characters(*text);
      count(e.line, list.size());
      std::string out;
      for (const std::size_t i : slice_places(list.size(), bounds[0], bounds[1], step))
        out += list[i];
      return out;
    }
    fail(e.line, concat("a slice of ", describe(value)));
  }

  Value call(const Expression& e) {
    const Expression& target = *e.parts[0];
    if (target.kind == Kind::attribute) {
      const Value value = evaluate(*target.parts[0]);
      if (value.string() != nullptr) return string_method(target.text, *value.string(), e);
      if (value.dict() != nullptr) {
        const Value* own = find_key(*value.dict(), target.text);
        if (own == nullptr || own->get<std::shared_ptr<const Callable>>() == nullptr)
          return dict_method(target.text, *value.dict(), e);
        return invoke(*own, e);
      }
      if (value.list() != nullptr) return list_method(target.text, *value.list(), e);
      fail(e.line, concat("method '", target.text, "' of ", describe(value)));
    }
    return invoke(evaluate(target), e);
  }
  Value invoke(const Value& value, const Expression& e) {
    const auto* function = value.get<std::shared_ptr<const Callable>>();
    if (function == nullptr) fail(e.line, concat("a call of ", describe(value)));
    const std::shared_ptr<const Callable> held = *function;
    return held->call(arguments(e));
  }

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

  Value string_method(std::string_view name, const std::string& text, const Expression& e) {
    const Arguments given = arguments(e);
    count(e.line, text.size() / 64);
    if (name == "strip" || name == "lstrip" || name == "rstrip") {
      return strip(text, optional_text(given, 0, "chars", e.line), name != "rstrip",
                   name != "lstrip");
    }
    if (name == "split") {
      return split(text, optional_text(given, 0, "sep", e.line),
                   optional_integer(given, 1, "maxsplit", -1, e.line), e.line);
    }
    if (name == "startswith" || name == "endswith") {
      const auto fits = [&](const std::string& part) {
        return name == "startswith" ? text.starts_with(part) : text.ends_with(part);
      };
      const Value* part = given.find(0, "prefix");
      if (part != nullptr && part->list() != nullptr) {
        return std::any_of(part->list()->begin(), part->list()->end(),
                           [&](const Value& one) { return fits(text_of(one, e.line, name)); });
      }
      return fits(required_text(given, 0, "prefix", e.line));
    }
    if (name == "upper" || name == "lower") return map_case(text, name == "upper");
    if (name == "title" || name == "capitalize") return capitalize(text, name == "title");
    if (name == "replace") return replaced(text, given, e.line);
    if (name == "find") {
      const std::size_t at = text.find(required_text(given, 0, "sub", e.line));
      if (at == text.npos) return -1;
      return static_cast<std::int64_t>(count_code_points(std::string_view(text).substr(0, at)));
    }
    if (name == "count") {
      const std::string& part = required_text(given, 0, "sub", e.line);
      std::int64_t found = 0;
      for (std::size_t at = part.empty() ? text.npos : text.find(part); at != text.npos;
           at = text.find(part, at + part.size()))
        ++found;
      return found;
    }
    if (name == "join") {
      const Value* list = given.find(0, "iterable");
      return joined(list == nullptr ? Value() : *list, text, e.line);
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
    fail(e.line, concat("the method '", name, "' of strings is not supported"));
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
  Value dict_method(std::string_view name, const Dict& dict, const Expression& e) {
    const Arguments given = arguments(e);
    List list;
    count(e.line, dict.size());
    if (name == "get") {
      const Value* found = find_key(dict, required_text(given, 0, "key", e.line));
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
    fail(e.line, concat("the mapping has no function '", name, "'"));
  }
  Value list_method(std::string_view name, const List& list, const Expression& e) {
    const Arguments given = arguments(e);
    const Value* value = given.find(0, "object");
    if (value == nullptr) fail(e.line, concat("an argument is missing: ", name));
    if (name == "index" || name == "count") {
      std::int64_t found = 0;
      for (std::size_t i = 0; i < list.size(); ++i) {
        if (!equal(list[i], *value)) continue;
        if (name == "index") return static_cast<std::int64_t>(i);
        ++found;
      }
      if (name == "count") return found;
      fail(e.line, "index: the value is not in the list");
    }
    fail(e.line, concat("the method '", name, "' of lists is not supported"));
  }

  Value binary(const Expression& e) {
    if (e.text == "and" || e.text == "or") {
      Value left = evaluate(*e.parts[0]);
      return truth(left) == (e.text == "or") ? left : evaluate(*e.parts[1]);
    }
    const Value left = evaluate(*e.parts[0]), right = evaluate(*e.parts[1]);
    if (e.text == "~") {
      std::string text = to_string(left) + to_string(right);
      check_size(e.line, text.size());
      return text;
    }
    if (e.text == "+" && left.string() != nullptr && right.string() != nullptr) {
      check_size(e.line, left.string()->size() + right.string()->size());
      return *left.string() + *right.string();
    }
    if (e.text == "+" && left.list() != nullptr && right.list() != nullptr) {
      List list = *left.list();
      list.insert(list.end(), right.list()->begin(), right.list()->end());
      count(e.line, list.size());
      return list;
    }
    if (e.text == "*" && left.string() != nullptr && right.integer()) {
      const auto times = static_cast<std::size_t>(std::max<std::int64_t>(*right.integer(), 0));
      if (!left.string()->empty() && times > kMaxOutput / left.string()->size())
        fail(e.line, "a text grows beyond all bounds");
      std::string text;
      for (std::size_t i = 0; i < times && !left.string()->empty(); ++i) text += *left.string();
      return text;
    }
    const auto x = left.number(), y = right.number();
    if (!x || !y) {
      fail(e.line, concat("'", e.text, "' between ", describe(left), " and ", describe(right)));
    }
    return arithmetic(e, left, right, *x, *y);
  }
  Value arithmetic(const Expression& e, const Value& left, const Value& right, double x, double y) {
    const auto a = left.integer(), b = right.integer();
    const bool zero = y == 0;
    if (zero && (e.text == "/" || e.text == "//" || e.text == "%"))
      fail(e.line, "division by zero");
    if (e.text == "/") return x / y;
    if (e.text == "**") {
      const double power = std::pow(x, y);
      if (a && b && *b >= 0 && std::abs(power) < 9e15) return static_cast<std::int64_t>(power);
      return power;
    }
    if (a && b) {
      std::int64_t result = 0;
      bool overflow = false;
      if (e.text == "+") overflow = __builtin_add_overflow(*a, *b, &result);
      if (e.text == "-") overflow = __builtin_sub_overflow(*a, *b, &result);
      if (e.text == "*") overflow = __builtin_mul_overflow(*a, *b, &result);
      if (e.text == "//" || e.text == "%") {
        overflow = *b == -1 && *a == std::numeric_limits<std::int64_t>::min();
        if (!overflow) {
          std::int64_t quotient = *a / *b, rest = *a % *b;
          if (rest != 0 && (rest < 0) != (*b < 0)) {  // towards minus infinity, as in Python
            --quotient;
            rest += *b;
          }
          result = e.text == "%" ? rest : quotient;
        }
      }
      if (overflow) fail(e.line, "a number is too large");
      return result;
    }
    if (e.text == "+") return x + y;
    if (e.text == "-") return x - y;
    if (e.text == "*") return x * y;
    const double quotient = std::floor(x / y);
    return e.text == "//" ? quotient : x - quotient * y;
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

  Value filter(std::string_view name, const Value& value, const Arguments& given, int line) {
    const std::string* text = value.string();
    if (text != nullptr) count(line, text->size() / 64);
    if (name == "trim") {
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
      std::string out;
      append_json(value, out, optional_integer(given, 0, "indent", -1, line));
      return out;
    }
    if (name == "join") {
      const std::string* separator = optional_text(given, 0, "d", line);
      const Value* by = given.find(1, "attribute");
      if (by == nullptr) return joined(value, separator == nullptr ? "" : *separator, line);
      List list;
      for (const Value& one : items_of(value, line))
        list.push_back(attribute(one, text_of(*by, line, "join"), line));
      return joined(list, separator == nullptr ? "" : *separator, line);
    }
    if (name == "int" || name == "float") return to_number(name == "int", value, given);
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
      List list;
      for (const Value& one : items_of(value, line)) {
        count(line, list.size());
        if (!contains(Value(list), one, line)) list.push_back(one);
      }
      return list;
    }
    if (name == "map") {
      List list;
      const Value* by = given.find(std::numeric_limits<std::size_t>::max(), "attribute");
      for (const Value& one : items_of(value, line)) {
        if (by != nullptr) {
          list.push_back(attribute(one, text_of(*by, line, "map"), line));
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

  using Scope = std::map<std::string, Value, std::less<>>;
  std::vector<Scope> scopes_;
  std::vector<std::shared_ptr<Dict>> namespaces_;
  std::string output_;
  std::vector<OutputRange> generated_;
  std::int64_t steps_ = 0;
  int calls_ = 0;
};

}  // namespace detail

/// A rendered text and the ranges of it that lie in `{% generation %}` blocks.
struct Rendered {
  std::string text;
  std::vector<detail::OutputRange> generated;
};

/// A parsed template. May be rendered from several threads at once.
class Template {
 public:
  /// Errors: ValueError with the line.
  explicit Template(std::string_view source) {
    constexpr std::size_t kMaxSource = 1 << 20;
    if (source.size() > kMaxSource) throw ValueError("chat template: longer than 1 MiB");
    if (!is_valid_utf8(source)) throw ValueError("chat template: not UTF-8");
    block_ = std::make_shared<detail::Block>(detail::Parser(detail::Lexer(source).run()).run());
  }

  Rendered render(Dict variables) const {
    detail::Interpreter interpreter(std::move(variables));
    interpreter.run(*block_);
    return {interpreter.output(), interpreter.generated()};
  }

 private:
  std::shared_ptr<const detail::Block> block_;
};

}  // namespace graft::inline v0_1::text::jinja
