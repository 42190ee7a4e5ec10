#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/text/jinja/value.hpp"

namespace graft::inline v0_1::text::jinja::detail {

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

}  // namespace graft::inline v0_1::text::jinja::detail
