#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "graft/io/json.hpp"
#include "graft/models/llama.hpp"

namespace graft::models {

namespace detail {

inline kernels::Activation activation_named(const io::JsonView& config, const std::string& key, const char* otherwise) {
  using kernels::Activation;
  const std::string name = config.string_or(key, otherwise);
  if (name == "silu" || name == "swish") return Activation::silu;
  if (name == "gelu") return Activation::gelu;
  if (name == "gelu_new" || name == "gelu_pytorch_tanh" || name == "gelu_fast") return Activation::gelu_tanh;
  if (name == "quick_gelu") return Activation::quick_gelu;
  if (name == "relu") return Activation::relu;
  if (name == "tanh") return Activation::tanh;
  config.fail(concat("activation '", name, "' is not supported"));
}

/// Rotary settings of a config.json: transformers 5 keeps them in rope_parameters, older ones at the top and in rope_scaling.
inline RopeConfig rope_config(const io::JsonView& config, Index dim) {
  RopeConfig rope;
  rope.dim = dim;
  rope.theta = config.number_or("rope_theta", 10000);
  auto read = [&](const io::JsonView& p) {
    rope.theta = p.number_or("rope_theta", rope.theta);
    rope.type = p.string_or("rope_type", p.string_or("type", "default"));
    rope.factor = p.number_or("factor", 1);
    rope.low_frequency_factor = p.number_or("low_freq_factor", 1);
    rope.high_frequency_factor = p.number_or("high_freq_factor", 4);
    rope.original_positions = p.number_or("original_max_position_embeddings", 8192);
  };
  if (const auto parameters = config.find("rope_parameters")) read(*parameters);
  else if (const auto scaling = config.find("rope_scaling")) read(*scaling);
  return rope;
}

inline LlamaConfig llama_config(const io::JsonView& json) {
  LlamaConfig config;
  config.model_type = json.at("model_type").string();
  const auto size = [&](const char* key) { return static_cast<Index>(json.at(key).integer(1, 1 << 30)); };
  config.vocabulary = size("vocab_size");
  config.hidden_size = size("hidden_size");
  config.intermediate_size = size("intermediate_size");
  config.layers = size("num_hidden_layers");
  config.heads = size("num_attention_heads");
  config.kv_heads = static_cast<Index>(json.integer_or("num_key_value_heads", config.heads));
  config.head_dim = static_cast<Index>(json.integer_or("head_dim", config.hidden_size / config.heads));
  config.max_positions = static_cast<Index>(json.integer_or("max_position_embeddings", 0));
  config.rms_norm_eps = json.number_or("rms_norm_eps", 1e-6);
  config.rope = rope_config(json, config.head_dim);
  config.tied_head = json.boolean_or("tie_word_embeddings", false);
  config.head_norm = config.model_type == "qwen3";
  config.activation = activation_named(json, "hidden_act", "silu");
  const bool windowed = config.model_type == "mistral" || json.boolean_or("use_sliding_window", false);
  if (windowed) config.window = static_cast<Index>(json.integer_or("sliding_window", 0));
  return config;
}

/// "model.layers.3.self_attn.q_proj.weight" -> "blk.3.attn_q.weight".
inline std::string gguf_name(const std::string& name) {
  static const std::pair<std::string_view, std::string_view> kTop[] = {
      {"model.embed_tokens", "token_embd"}, {"model.norm", "output_norm"}, {"lm_head", "output"}};
  for (const auto& [from, to] : kTop)
    if (name.starts_with(from)) return std::string(to) + name.substr(from.size());
  static constexpr std::string_view kLayers = "model.layers.";
  if (!name.starts_with(kLayers)) return name;
  const auto dot = name.find('.', kLayers.size());
  const std::string layer = name.substr(kLayers.size(), dot - kLayers.size());
  const std::string rest = name.substr(dot + 1);
  static const std::pair<std::string_view, std::string_view> kParts[] = {
      {"self_attn.q_proj", "attn_q"},       {"self_attn.k_proj", "attn_k"},
      {"self_attn.v_proj", "attn_v"},       {"self_attn.o_proj", "attn_output"},
      {"self_attn.q_norm", "attn_q_norm"},  {"self_attn.k_norm", "attn_k_norm"},
      {"mlp.gate_proj", "ffn_gate"},        {"mlp.up_proj", "ffn_up"},
      {"mlp.down_proj", "ffn_down"},        {"input_layernorm", "attn_norm"},
      {"post_attention_layernorm", "ffn_norm"}};
  for (const auto& [from, to] : kParts)
    if (rest.starts_with(from)) return "blk." + layer + "." + std::string(to) + rest.substr(from.size());
  return name;
}

inline LlamaConfig llama_config(const io::GgufFile& file, const std::string& architecture) {
  const auto& m = file.metadata();
  const auto key = [&](const char* name) { return architecture + "." + name; };
  LlamaConfig config;
  config.model_type = architecture;
  config.hidden_size = static_cast<Index>(m.get_u64(key("embedding_length")));
  config.intermediate_size = static_cast<Index>(m.get_u64(key("feed_forward_length")));
  config.layers = static_cast<Index>(m.get_u64(key("block_count")));
  config.heads = static_cast<Index>(m.get_u64(key("attention.head_count")));
  config.kv_heads = static_cast<Index>(m.get_u64(key("attention.head_count_kv"), static_cast<std::uint64_t>(config.heads)));
  if (config.heads == 0) throw IoError(concat(file.name(), ": ", key("attention.head_count"), " is 0"));
  config.head_dim = static_cast<Index>(
      m.get_u64(key("attention.key_length"), static_cast<std::uint64_t>(config.hidden_size / config.heads)));
  config.max_positions = static_cast<Index>(m.get_u64(key("context_length"), 0));
  config.rms_norm_eps = m.get_f32(key("attention.layer_norm_rms_epsilon"), 1e-6F);
  config.rope.dim = config.head_dim;
  config.rope.theta = m.get_f32(key("rope.freq_base"), 10000.0F);
  config.tied_head = file.find("output.weight") == nullptr;
  config.head_norm = architecture == "qwen3";
  config.vocabulary = file.at("token_embd.weight").rows();
  return config;
}

}  // namespace detail

/// Opens a model: a GGUF file, a Hugging Face folder (config.json and safetensors), with weights mapped.
/// @throws IoError that names the file and what is wrong; ValueError for an architecture that is not supported.
template <std::floating_point T>
std::unique_ptr<BasicModel<T>> load(const std::filesystem::path& path) {
  if (std::filesystem::is_directory(path)) {
    const auto document = io::read_json(path / "config.json");
    const io::JsonView json(document, (path / "config.json").string());
    const std::string type = json.at("model_type").string();
    if (type == "llama" || type == "mistral" || type == "qwen2" || type == "qwen3")
      return std::make_unique<BasicLlama<T>>(detail::llama_config(json), SafetensorsWeights<T>(path));
    json.at("model_type").fail(concat("architecture '", type, "' is not supported"));
  }
  auto file = std::make_shared<const io::GgufFile>(io::GgufFile::open(path));
  const std::string architecture = file->metadata().get_string("general.architecture");
  if (architecture == "llama" || architecture == "qwen2" || architecture == "qwen3") {
    const auto config = detail::llama_config(*file, architecture);
    const auto head_rows = [head = config.head_dim, architecture](const std::string& name) -> Index {
      if (architecture != "llama") return 0;
      return name.find("self_attn.q_proj") != std::string::npos || name.find("self_attn.k_proj") != std::string::npos ? head : 0;
    };
    return std::make_unique<BasicLlama<T>>(config, GgufWeights<T>(file, detail::gguf_name, head_rows));
  }
  throw ValueError(concat(path.string(), ": architecture '", architecture, "' is not supported"));
}

}  // namespace graft::models
