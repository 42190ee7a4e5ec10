#pragma once

// The only header that includes PCRE2.
#ifndef PCRE2_CODE_UNIT_WIDTH
#define PCRE2_CODE_UNIT_WIDTH 8
#endif
#include <pcre2.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "graft/base/error.hpp"
#include "graft/config.hpp"
#include "graft/text/unicode.hpp"

namespace graft::inline v0_1::text {

namespace detail {

struct PcreFree {
  void operator()(pcre2_code* p) const { pcre2_code_free(p); }
  void operator()(pcre2_compile_context* p) const { pcre2_compile_context_free(p); }
  void operator()(pcre2_match_context* p) const { pcre2_match_context_free(p); }
  void operator()(pcre2_match_data* p) const { pcre2_match_data_free(p); }
  void operator()(pcre2_jit_stack* p) const { pcre2_jit_stack_free(p); }
};

/// What matching needs besides the pattern; kept because making it costs more than a short match.
struct PcreScratch {
  std::unique_ptr<pcre2_match_data, PcreFree> match;
  std::unique_ptr<pcre2_match_context, PcreFree> context;
  std::unique_ptr<pcre2_jit_stack, PcreFree> stack;

  PcreScratch()
      : match(pcre2_match_data_create(1, nullptr)),
        context(pcre2_match_context_create(nullptr)),
        stack(pcre2_jit_stack_create(32 * 1024, 8 * 1024 * 1024, nullptr)) {
    pcre2_set_match_limit(context.get(), 2'000'000);
    pcre2_jit_stack_assign(context.get(), nullptr, stack.get());
  }
  static const PcreScratch& of_this_thread() {
    thread_local const PcreScratch scratch;
    return scratch;
  }
};

GRAFT_IO std::string pcre_message(int code);

}  // namespace detail

/// A regular expression over valid UTF-8 with Unicode classes, in the dialect of Oniguruma, which
/// tokenizer files are written in, as far as pre-tokenisers use it; matched by PCRE2.
///
/// `\s` is White_Space, `\w` is Alphabetic + M + Nd + Pc, `\h` a hexadecimal digit, `^` and `$`
/// also match at line breaks. Set operations and nested sets in brackets are refused rather than
/// misread. Errors: ValueError with the pattern; a match that needs too many steps is one too.
class Regex {
 public:
  explicit Regex(std::string_view pattern);

  const std::string& pattern() const { return pattern_; }

  /// Calls `visit(begin, end)` for the matches from left to right, which do not overlap. An empty
  /// match directly after another match does not count.
  template <class Visit>
  void for_each_match(std::string_view text, Visit&& visit) const {
    const detail::PcreScratch& scratch = detail::PcreScratch::of_this_thread();
    pcre2_match_data* match = scratch.match.get();
    pcre2_match_context* context = scratch.context.get();
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    std::size_t previous_end = std::string_view::npos;
    for (std::size_t start = 0; start <= text.size();) {
      int count =
          pcre2_match(code_.get(), subject, text.size(), start, PCRE2_NO_UTF_CHECK, match, context);
      if (count == PCRE2_ERROR_JIT_STACKLIMIT) {
        count = pcre2_match(code_.get(), subject, text.size(), start,
                            PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, match, context);
      }
      if (count == PCRE2_ERROR_NOMATCH) return;
      if (count < 0) fail(detail::pcre_message(count));
      const PCRE2_SIZE* range = pcre2_get_ovector_pointer(match);
      const std::size_t begin = range[0], end = range[1];
      if (begin > end) fail("a match ends before it begins");  // \K in a lookahead
      if (begin == end && begin == previous_end) {
        if (start >= text.size()) return;
        start = begin + utf8_length(text[begin]);
        previous_end = std::string_view::npos;
        continue;
      }
      visit(begin, end);
      previous_end = end;
      start = end;
    }
  }

 private:
  [[noreturn]] void fail(std::string_view reason) const;

  /// Members of the POSIX class `name` where PCRE2 and Oniguruma differ; empty where they do not.
  static std::string_view posix_members(std::string_view name);

  /// Spells out the classes that PCRE2 and Oniguruma define differently.
  std::string translate(std::string_view pattern) const;

  static constexpr std::string_view kSpace = "\\p{Z}\\t-\\r\\x{85}";
  static constexpr std::string_view kWord = "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}";
  static constexpr std::string_view kHexDigit = "0-9A-Fa-f";
  std::string pattern_;
  std::shared_ptr<const pcre2_code> code_;
};

}  // namespace graft::inline v0_1::text

#if !defined(GRAFT_FILES_COMPILED)
#include "graft/text/impl/regex_impl.hpp"
#endif
