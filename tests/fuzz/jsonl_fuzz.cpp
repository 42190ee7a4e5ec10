// Any bytes as JSON lines of chats or texts.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "graft/io/json.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    graft::io::for_each_json_line(text, "input.jsonl",
                                  [](const graft::io::JsonView& line, graft::Index number) {
                                    if (number < 1) __builtin_trap();
                                    if (line.has("text")) (void)line.at("text").string();
                                    if (const auto messages = line.find("messages")) {
                                      for (const auto& message : messages->elements()) {
                                        (void)message.at("role").string();
                                        (void)message.at("content").string();
                                      }
                                    }
                                    (void)graft::io::json_text(line.json(), -1);
                                  });
  } catch (const graft::IoError&) {
  }
  return 0;
}
