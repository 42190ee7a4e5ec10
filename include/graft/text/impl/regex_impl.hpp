#pragma once

#include <array>

#include "graft/text/regex.hpp"
#include "graft/text/unicode.hpp"

namespace graft::inline v0_1::text {

namespace detail {

GRAFT_IO std::string pcre_message(int code) {
  std::array<PCRE2_UCHAR, 256> buffer{};
  pcre2_get_error_message(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

}  // namespace detail

GRAFT_IO Regex::Regex(std::string_view pattern) : pattern_(pattern) {
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

GRAFT_IO void Regex::fail(std::string_view reason) const {
  std::string shown = pattern_;
  if (shown.size() > 200) shown = replace_invalid_utf8(shown.substr(0, 197)).append("...");
  throw ValueError(concat("Regex: pattern '", shown, "': ", reason));
}

GRAFT_IO std::string_view Regex::posix_members(std::string_view name) {
  if (name == "word") return kWord;
  if (name == "punct") return "\\p{P}\\p{S}";
  if (name == "alpha") return "\\p{Alphabetic}";
  if (name == "alnum") return "\\p{Alphabetic}\\p{Nd}";
  if (name == "upper") return "\\p{Uppercase}";
  if (name == "lower") return "\\p{Lowercase}";
  if (name == "space") return kSpace;
  return {};
}

GRAFT_IO std::string Regex::translate(std::string_view pattern) const {
  if (!is_valid_utf8(pattern)) fail("not UTF-8");
  // Oniguruma looks single characters below U+0100 up in a table of Latin-1, where superscripts
  // and fractions are of words; in sets they are not.
  const std::string word = std::string(kWord) + "\\x{B2}\\x{B3}\\x{B9}\\x{BC}-\\x{BE}";
  std::string out, members;  // members: of the set that is open
  bool in_set = false, negated = false, not_word = false;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    const char c = pattern[i];
    std::string& target = in_set ? members : out;
    if (c == '\\' && i + 1 < pattern.size()) {
      const char name = pattern[++i];
      const std::string_view listed = name == 's' || name == 'S'   ? kSpace
                                      : name == 'w' || name == 'W' ? in_set ? kWord : word
                                      : name == 'h' || name == 'H' ? kHexDigit
                                                                   : std::string_view();
      const bool complement = name == 'S' || name == 'W' || name == 'H';
      if (!in_set && (name == 'b' || name == 'B')) {
        const std::string in = "[" + word + "]";
        const char* other = name == 'b' ? "(?!" : "(?=";
        const char* same = name == 'b' ? "(?=" : "(?!";
        out += concat("(?:(?<=", in, ")", other, in, ")|(?<!", in, ")", same, in, "))");
      } else if (listed.empty()) {
        target.append({c, name});
      } else if (!in_set) {
        out.append(complement ? "[^" : "[").append(listed).append("]");
      } else if (!complement) {
        members.append(listed);
      } else if (name == 'W') {
        not_word = true;
      } else if (name == 'H') {
        fail("\\H in a set is not supported");
      } else {
        members.append({c, name});
      }
      continue;
    }
    if (!in_set && c == '[') {
      in_set = true;
      negated = not_word = false;
      members.clear();
      if (i + 1 < pattern.size() && pattern[i + 1] == '^') {
        negated = true;
        ++i;
      }
      // A bracket in the first place is a literal, in PCRE2 as in Oniguruma.
      if (i + 1 < pattern.size() && pattern[i + 1] == ']') members.push_back(pattern[++i]);
      continue;
    }
    if (in_set) {
      if (c == '[' && pattern.substr(i, 2) == "[:") {
        const std::size_t end = pattern.find(":]", i + 2);
        if (end == pattern.npos) fail("unfinished [: :]");
        const auto listed = posix_members(pattern.substr(i + 2, end - i - 2));
        members.append(listed.empty() ? pattern.substr(i, end + 2 - i) : listed);
        i = end + 1;
        continue;
      }
      if (c == '[') fail("a set inside a set is not supported");
      if (pattern.substr(i, 2) == "&&") fail("set operations (&&) are not supported");
      if (c == ']') {
        in_set = false;
        const auto set = [](std::string_view open, std::string_view of) {
          return concat(open, of, "]");
        };
        if (!not_word)
          out += set(negated ? "[^" : "[", members);
        else if (members.empty())
          out += set(negated ? "[" : "[^", kWord);
        else if (negated)
          out += concat("(?:(?!", set("[", members), ")", set("[", kWord), ")");
        else
          out += concat("(?:", set("[", members), "|", set("[^", kWord), ")");
        continue;
      }
    }
    target.push_back(c);
  }
  if (in_set) out += (negated ? "[^" : "[") + members;  // PCRE2 says what is missing
  return out;
}

}  // namespace graft::inline v0_1::text
