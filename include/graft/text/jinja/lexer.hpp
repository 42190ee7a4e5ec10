#pragma once

#include <charconv>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graft/text/jinja/error.hpp"
#include "graft/text/unicode.hpp"

namespace graft::inline v0_1::text::jinja::detail {

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

}  // namespace graft::inline v0_1::text::jinja::detail
