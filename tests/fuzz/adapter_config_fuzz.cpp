// Any bytes as an adapter_config.json: parse it and read the fields that configurations have, each
// by its kind.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "graft/io/json.hpp"

namespace {

using graft::io::JsonView;

void read_config(const JsonView& config) {
  (void)config.at("peft_type").string();
  (void)config.string_or("bias", "none");
  (void)config.integer_or("r", 8, 1, 1 << 20);
  (void)config.number_or("lora_alpha", 8.0);
  (void)config.boolean_or("use_rslora", false);
  if (const auto targets = config.find("target_modules")) {
    if (targets->is_string()) {
      (void)targets->string();
    } else {
      (void)targets->strings();
    }
  }
  if (const auto layers = config.find("layers_to_transform")) {
    if (layers->is_array()) {
      (void)layers->integers(0);
    } else {
      (void)layers->integer(0);
    }
  }
  for (const char* pattern : {"rank_pattern", "alpha_pattern"}) {
    if (const auto entries = config.find(pattern)) {
      for (const auto& [name, value] : entries->members()) (void)value.number();
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const auto document = graft::io::parse_json(text, "adapter_config.json");
    const std::string again = graft::io::json_text(document);
    if (graft::io::json_text(graft::io::parse_json(again, "again")) != again) __builtin_trap();
    read_config(JsonView(document, "adapter_config.json"));
  } catch (const graft::IoError&) {
  }
  return 0;
}
