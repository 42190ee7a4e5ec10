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

inline std::string pcre_message(int code) {
  std::array<PCRE2_UCHAR, 256> buffer{};
  pcre2_get_error_message(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

}  // namespace detail

/// A regular expression over valid UTF-8 with Unicode classes, in the dialect of Oniguruma, which
/// tokenizer files are written in, as far as pre-tokenisers use it; matched by PCRE2.
///
/// `\s` is White_Space, `\w` is Alphabetic + M + Nd + Pc + joiners, `^` and `$` also match at line
/// breaks. Set operations and nested sets in brackets are refused rather than misread.
/// Errors: ValueError with the pattern; a match that needs too many steps is one too.
class Regex {
 public:
  explicit Regex(std::string_view pattern) : pattern_(pattern) {
    const std::string translated = translate(pattern);
    const std::unique_ptr<pcre2_compile_context, detail::PcreFree> context(
        pcre2_compile_context_create(nullptr));
    pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
    pcre2_set_max_pattern_length(context.get(), 1 << 17);
    int error = 0;
    PCRE2_SIZE place = 0;
    pcre2_code* code =
        pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error,
                      &place, context.get());
    if (code == nullptr) fail(detail::pcre_message(error));
    pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);  // where there is no JIT, the interpreter matches
    code_.reset(code, detail::PcreFree());
  }

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
  [[noreturn]] void fail(std::string_view reason) const {
    std::string shown = pattern_;
    if (shown.size() > 200) shown = replace_invalid_utf8(shown.substr(0, 197)).append("...");
    throw ValueError(concat("Regex: pattern '", shown, "': ", reason));
  }

  /// Spells out the classes that PCRE2 and Oniguruma define differently.
  std::string translate(std::string_view pattern) const {
    static constexpr std::string_view kSpace = "\\p{Z}\\t-\\r\\x{85}";
    static constexpr std::string_view kWord =
        "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200C}\\x{200D}";
    if (!is_valid_utf8(pattern)) fail("not UTF-8");
    std::string out;
    bool in_set = false;
    for (std::size_t i = 0; i < pattern.size(); ++i) {
      const char c = pattern[i];
      if (c == '\\' && i + 1 < pattern.size()) {
        const char name = pattern[++i];
        const std::string_view members = name == 's' || name == 'S'   ? kSpace
                                         : name == 'w' || name == 'W' ? kWord
                                                                      : std::string_view();
        const bool negated = name == 'S' || name == 'W';
        if (members.empty()) {
          out.append({c, name});
        } else if (!in_set) {
          out.append(negated ? "[^" : "[").append(members).append("]");
        } else if (!negated) {
          out.append(members);
        } else {
          out.append({c, name});
        }
        continue;
      }
      if (!in_set && c == '[') {
        in_set = true;
        out.push_back(c);
        if (i + 1 < pattern.size() && pattern[i + 1] == '^') out.push_back(pattern[++i]);
        // A bracket in the first place is a literal, in PCRE2 as in Oniguruma.
        if (i + 1 < pattern.size() && pattern[i + 1] == ']') out.push_back(pattern[++i]);
        continue;
      }
      if (in_set) {
        if (c == '[' && pattern.substr(i, 2) == "[:") {
          const std::size_t end = pattern.find(":]", i + 2);
          if (end == pattern.npos) fail("unfinished [: :]");
          out.append(pattern.substr(i, end + 2 - i));
          i = end + 1;
          continue;
        }
        if (c == '[') fail("a set inside a set is not supported");
        if (pattern.substr(i, 2) == "&&") fail("set operations (&&) are not supported");
        if (c == ']') in_set = false;
      }
      out.push_back(c);
    }
    return out;
  }

  std::string pattern_;
  std::shared_ptr<const pcre2_code> code_;
};

}  // namespace graft::inline v0_1::text
