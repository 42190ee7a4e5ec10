#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graft/text/jinja/builtins.hpp"
#include "graft/text/jinja/tree.hpp"

namespace graft::inline v0_1::text::jinja::detail {

/// Positions [begin, end) of the output.
struct OutputRange {
  std::size_t begin;
  std::size_t end;
};

/// Runs the statements of a template.
class Interpreter : private Builtins {
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

  void define(std::string_view name, Value value) {
    scopes_.back().insert_or_assign(std::string(name), std::move(value));
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
      if (value.string() != nullptr)
        return string_method(target.text, *value.string(), arguments(e), e.line);
      if (value.dict() != nullptr) {
        const Value* own = find_key(*value.dict(), target.text);
        if (own == nullptr || own->get<std::shared_ptr<const Callable>>() == nullptr)
          return dict_method(target.text, *value.dict(), arguments(e), e.line);
        return invoke(*own, e);
      }
      if (value.list() != nullptr)
        return list_method(target.text, *value.list(), arguments(e), e.line);
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

  Value binary(const Expression& e) {
    if (e.text == "and" || e.text == "or") {
      Value left = evaluate(*e.parts[0]);
      return truth(left) == (e.text == "or") ? left : evaluate(*e.parts[1]);
    }
    const Value left = evaluate(*e.parts[0]), right = evaluate(*e.parts[1]);
    return operation(e.text, left, right, e.line);
  }

  using Scope = std::map<std::string, Value, std::less<>>;
  std::vector<Scope> scopes_;
  std::vector<std::shared_ptr<Dict>> namespaces_;
  std::string output_;
  std::vector<OutputRange> generated_;
  int calls_ = 0;
};

}  // namespace graft::inline v0_1::text::jinja::detail
