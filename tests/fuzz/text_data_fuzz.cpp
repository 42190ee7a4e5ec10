// Any bytes as a chat template: parse and render, or refuse.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "graft/text/chat_template.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const graft::text::ChatTemplate chat(text);
    const std::vector<graft::text::ChatMessage> messages{{"system", "Be brief."},
                                                         {"user", "2 + 2?"},
                                                         {"assistant", " four\n"},
                                                         {"user", "\xC3\xA9"}};
    graft::text::ChatOptions options;
    options.bos = "<s>";
    options.eos = "</s>";
    options.now = 0;
    const auto rendered = chat.render(messages, options);
    for (const auto& range : rendered.assistant) {
      if (range.begin < 0 || range.end < range.begin ||
          range.end > static_cast<graft::Index>(rendered.text.size())) {
        __builtin_trap();
      }
    }
  } catch (const graft::Error&) {
  }
  return 0;
}
