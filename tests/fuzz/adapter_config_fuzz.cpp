// Any bytes as an adapter_config.json: parsed, read as the configuration of LoRA, and asked which
// modules it means. Errors are the only thing that may come out; what is accepted is written and
// read back unchanged.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "graft/adapters/low_rank/lora_config.hpp"
#include "graft/adapters/target_match.hpp"
#include "graft/compose/config_json.hpp"

namespace {

using graft::ConfigValue;

void read_lora(const ConfigValue::Map& map) {
  graft::LoRAConfig config;
  graft::ConfigReader reader(map);
  config.fields(reader);
  ConfigValue::Map written;
  graft::ConfigWriter writer(written);
  config.fields(writer);
  graft::LoRAConfig again;
  graft::ConfigReader rereader(written);
  again.fields(rereader);
  ConfigValue::Map rewritten;
  graft::ConfigWriter rewriter(rewritten);
  again.fields(rewriter);
  if (graft::io::json_text(graft::config_json(written)) !=
      graft::io::json_text(graft::config_json(rewritten)))
    __builtin_trap();
  const std::string_view path = "model.layers.3.self_attn.q_proj";
  (void)graft::matches(config.target_modules, path);
  (void)graft::layer_of(path, config.select.layers_pattern);
  (void)graft::pattern_value(config.select.rank_pattern, path);
  if constexpr (requires { config.validate(); }) config.validate();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const auto document = graft::io::parse_json(text, "adapter_config.json");
    const ConfigValue value = graft::config_value(document);
    if (const auto* map = value.get_if<ConfigValue::Map>()) read_lora(*map);
  } catch (const graft::Error&) {
  }
  return 0;
}
