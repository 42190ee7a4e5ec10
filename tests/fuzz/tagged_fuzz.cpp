// Any bytes as tagged texts, in columns and as JSON lines: refused, or texts of at least one word
// with a tag for each word.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "graft/text/tagged.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  graft::text::TaggedDataOptions options;
  for (const bool tagged : {true, false}) {
    options.tagged = tagged;
    const auto check = [&](const auto& rows) {
      for (const auto& row : rows)
        if (row.words.empty() || row.tags.size() != (tagged ? row.words.size() : 0))
          __builtin_trap();
    };
    try {
      check(graft::text::detail::parse_columns(text, "columns", tagged));
    } catch (const graft::Error&) {
    }
    try {
      check(graft::text::detail::parse_tagged_lines(text, "lines", options));
    } catch (const graft::Error&) {
    }
  }
  return 0;
}
