#pragma once

#include <algorithm>
#include <charconv>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graft/text/jinja/lexer.hpp"
#include "graft/text/jinja/tree.hpp"

namespace graft::inline v0_1::text::jinja::detail {

/// Makes the tree of a template from its tokens.
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
  /// Operands with some of the operators between them, which nest to the left.
  ExpressionPtr left_to_right(ExpressionPtr (Parser::*operand)(),
                              std::initializer_list<std::string_view> operators) {
    ExpressionPtr left = (this->*operand)();
    const auto is_here = [&](std::string_view op) { return is_sign(op) || is_name(op); };
    while (std::any_of(operators.begin(), operators.end(), is_here)) {
      const std::string op = next().text;
      left = binary(op, std::move(left), (this->*operand)());
      wide(left);
    }
    return left;
  }
  ExpressionPtr disjunction() { return left_to_right(&Parser::conjunction, {"or"}); }
  ExpressionPtr conjunction() { return left_to_right(&Parser::negation, {"and"}); }
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
  ExpressionPtr sum() { return left_to_right(&Parser::concatenation, {"+", "-"}); }
  ExpressionPtr concatenation() { return left_to_right(&Parser::product, {"~"}); }
  ExpressionPtr product() { return left_to_right(&Parser::power, {"*", "/", "//", "%"}); }
  ExpressionPtr power() { return left_to_right(&Parser::base, {"**"}); }
  ExpressionPtr base() { return unary(true); }
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

}  // namespace graft::inline v0_1::text::jinja::detail
