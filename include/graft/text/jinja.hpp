#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graft/text/jinja/interpreter.hpp"
#include "graft/text/jinja/parser.hpp"

/// A small interpreter of the Jinja template language, as far as chat templates use it: output, if,
/// for (with filter, else, unpacking, break, continue), set (also of namespace attributes and as a
/// block), macro, generation; Jinja's expressions with slices, tests and filters. Blocks are
/// trimmed as transformers does (trim_blocks, lstrip_blocks). Templates are untrusted: nesting,
/// steps and output are bounded, nothing outside of the given variables can be reached.
///
/// Errors: ValueError "chat template, line N: …", also for what raise_exception says and for parts
/// of the language that are left out (inheritance, include, import, call and filter blocks, …).
namespace graft::inline v0_1::text::jinja {

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
