#include <cstdio>
#include <map>

#include "common.hpp"
#include "files.hpp"

namespace cli {
namespace {

namespace fs = std::filesystem;
using graft::Index;
using graft::Tensor;
using graft::io::Json;

struct Settings {
  std::string model, adapters, output, type = "f32";
};

/// All weights of a model by their names in Hugging Face files.
std::vector<std::pair<std::string, Tensor>> weights_of(const graft::models::CausalModel& model) {
  std::vector<std::pair<std::string, Tensor>> list;
  const auto& table = model.sites();
  for (const auto* site : table.embedding)
    list.emplace_back(site->path() + ".weight", site->table().dense());
  for (const auto* site : table.linear) {
    Tensor w = site->base().dense_weight();
    if (site->path() == "lm_head") {
      const Tensor tied = table.embedding.front()->table().dense();
      if (w.shape() == tied.shape() && std::equal(w.begin(), w.end(), tied.begin())) continue;
    }
    if (site->fan_in_fan_out) {
      Tensor stored = Tensor::empty({w.cols(), w.rows()});
      for (Index i = 0; i < w.rows(); ++i)
        for (Index j = 0; j < w.cols(); ++j) stored(j, i) = w(i, j);
      w = stored;
    }
    list.emplace_back(site->path() + ".weight", w);
    if (site->base().bias()) list.emplace_back(site->path() + ".bias", site->base().bias());
  }
  for (const auto* site : table.norm) {
    if (site->norm().weight) list.emplace_back(site->path() + ".weight", site->norm().weight);
    if (site->norm().bias) list.emplace_back(site->path() + ".bias", site->norm().bias);
  }
  return list;
}

/// config.json of a model that came from a GGUF file.
Json config_of(const graft::models::CausalModel& model, bool tied) {
  const auto* llama = dynamic_cast<const graft::models::Llama*>(&model);
  if (llama == nullptr)
    throw graft::ValueError(
        "merge: a model folder is written from a GGUF file of the LLaMA family only");
  const auto& c = llama->config();
  const std::string name = c.model_type == "qwen2"   ? "Qwen2"
                           : c.model_type == "qwen3" ? "Qwen3"
                                                     : "Llama";
  return {{"architectures", {name + "ForCausalLM"}},
          {"model_type", c.model_type},
          {"vocab_size", c.vocabulary},
          {"hidden_size", c.hidden_size},
          {"intermediate_size", c.intermediate_size},
          {"num_hidden_layers", c.layers},
          {"num_attention_heads", c.heads},
          {"num_key_value_heads", c.kv_heads},
          {"head_dim", c.head_dim},
          {"max_position_embeddings", c.max_positions},
          {"rms_norm_eps", c.rms_norm_eps},
          {"rope_theta", c.rope.theta},
          {"hidden_act", "silu"},
          {"tie_word_embeddings", tied},
          {"attention_bias", false},
          {"torch_dtype", "float32"}};
}

void write_folder(const Settings& s, const graft::models::CausalModel& model,
                  const fs::path& work) {
  const auto weights = weights_of(model);
  std::vector<graft::io::TensorToWrite> tensors;
  bool tied = true;
  for (const auto& [name, t] : weights) {
    if (name == "lm_head.weight") tied = false;
    graft::io::TensorToWrite item;
    item.name = name;
    item.dtype = graft::io::DType::f32;
    item.shape.assign(t.shape().begin(), t.shape().end());
    item.data = std::as_bytes(t.span());
    tensors.push_back(std::move(item));
  }
  graft::io::write_safetensors(work / "model.safetensors", tensors);
  Json config;
  if (fs::is_directory(s.model)) {
    config = graft::io::read_json(fs::path(s.model) / "config.json");
    config["tie_word_embeddings"] = tied;
    for (const auto& entry : fs::directory_iterator(s.model)) {
      const std::string name = entry.path().filename().string();
      if (entry.is_regular_file() &&
          (name.find("token") != std::string::npos || name.starts_with("vocab") ||
           name.starts_with("merges") || name == "generation_config.json" ||
           name == "chat_template.jinja"))
        fs::copy_file(entry.path(), work / name, fs::copy_options::overwrite_existing);
    }
  } else {
    config = config_of(model, tied);
  }
  config["dtype"] = "float32";
  const std::string text = graft::io::json_text(config, 2) + "\n";
  graft::io::write_file_atomically(work / "config.json", std::as_bytes(std::span(text)));
}

/// The source file with the weights that changed in another format; everything else byte for byte.
void write_gguf_file(const Settings& s, const graft::models::CausalModel& model,
                     const std::map<std::string, bool>& changed) {
  const auto source = graft::io::GgufFile::open(s.model);
  static const std::map<std::string, graft::quant::Format> kTypes = {
      {"f32", graft::quant::Format::f32},
      {"f16", graft::quant::Format::f16},
      {"bf16", graft::quant::Format::bf16},
      {"q8_0", graft::quant::Format::q8_0}};
  const auto format = kTypes.at(s.type);
  const std::string architecture = source.metadata().get_string("general.architecture");
  std::map<std::string, std::vector<std::byte>> replaced;
  for (const auto& [name, t] : weights_of(model)) {
    const std::string stem = name.substr(0, name.rfind('.'));
    if (!changed.contains(stem) || t.rank() != 2) continue;
    std::vector<float> values(t.begin(), t.end());
    if (interleaved_rows(architecture, name))
      values = reorder_rows(values, t.rows(), model.info().head_dim, true);
    const Index row = graft::quant::row_bytes(format, t.cols());
    std::vector<std::byte> bytes(static_cast<std::size_t>(row * t.rows()));
    graft::quant::encode(format, values.data(), t.size(), bytes.data());
    replaced[graft::models::detail::gguf_name(name, architecture == "gemma3")] = std::move(bytes);
  }
  std::vector<graft::io::GgufTensorToWrite> tensors;
  for (const auto& t : source.tensors()) {
    graft::io::GgufTensorToWrite item;
    item.name = t.name;
    item.shape = t.shape;
    item.ggml_type = t.ggml_type;
    item.data = t.data;
    if (const auto it = replaced.find(t.name); it != replaced.end()) {
      item.ggml_type = graft::quant::format_info(format).ggml_type;
      item.data = it->second;
    }
    tensors.push_back(std::move(item));
  }
  graft::io::write_gguf(s.output, source.metadata(), tensors);
}

int merge(const Settings& s) {
  const auto model = load_causal(s.model);
  graft::AdapterModel adapters(model->sites(), methods());
  load_adapters(adapters, split(s.adapters, ','));
  if (adapters.active().empty())
    throw graft::ValueError("--adapter: at least one adapter is needed");
  std::map<std::string, bool> changed;
  for (const auto* site : model->sites().linear)
    if (!site->chain().empty() || site->bias_override) changed[site->path()] = true;
  adapters.merge({.dequantize = true});
  const bool gguf = fs::path(s.output).extension() == ".gguf";
  if (gguf) {
    if (fs::is_directory(s.model))
      throw graft::ValueError("--output: a GGUF file can be written from a GGUF model only");
    write_gguf_file(s, *model, changed);
  } else {
    const fs::path work = s.output + ".writing";
    fs::remove_all(work);
    fs::create_directories(work);
    write_folder(s, *model, work);
    if (fs::exists(s.output)) {
      if (!fs::is_directory(s.output)) throw graft::IoError(s.output + ": exists and is no folder");
      for (const auto& entry : fs::directory_iterator(work))
        fs::rename(entry.path(), fs::path(s.output) / entry.path().filename());
      fs::remove_all(work);
    } else {
      fs::rename(work, s.output);
    }
    if (!fs::is_directory(s.model))
      std::printf("the folder has no tokenizer: take that of the original model\n");
  }
  std::printf("merged %zu weights into %s\n", changed.size(), s.output.c_str());
  return 0;
}

}  // namespace

void add_merge(CLI::App& app, Command& run) {
  auto* c = app.add_subcommand("merge",
                               "Fold adapters into the model: a safetensors folder or a GGUF file");
  auto s = std::make_shared<Settings>();
  c->option_defaults()->always_capture_default();
  c->add_option("--model", s->model, "GGUF file or Hugging Face folder")->required();
  c->add_option("--adapter", s->adapters, "Adapter folders separated by commas")->required();
  c->add_option("--output", s->output, "Folder, or a name that ends in .gguf")->required();
  c->add_option("--type", s->type, "Format of merged weights in a GGUF file")
      ->check(CLI::IsMember({"f32", "f16", "bf16", "q8_0"}));
  c->callback([&run, s] { run = [s] { return merge(*s); }; });
}

}  // namespace cli
