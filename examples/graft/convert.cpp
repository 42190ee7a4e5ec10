#include <cstdio>

#include "common.hpp"
#include "files.hpp"

namespace cli {
namespace {

namespace fs = std::filesystem;
using graft::Index;
using graft::io::Json;

constexpr std::string_view kPrefix = "base_model.model.";

struct Settings {
  std::string input, output, model;
};

graft::io::TensorToWrite f32_tensor(const std::string& name, Index rows, Index cols,
                                    const std::vector<float>& values) {
  graft::io::TensorToWrite t;
  t.name = name;
  t.dtype = graft::io::DType::f32;
  t.shape = {rows, cols};
  t.data = std::as_bytes(std::span(values));
  return t;
}

/// PEFT folder -> GGUF file as llama.cpp loads it with --lora.
void to_gguf(const Settings& s, const graft::ModelInfo& info) {
  const auto config = graft::read_config_file(fs::path(s.input) / "adapter_config.json");
  const auto text = [&](const char* key) {
    const auto it = config.find(key);
    const auto* value = it == config.end() ? nullptr : it->second.get_if<std::string>();
    return value == nullptr ? std::string() : *value;
  };
  const auto flag = [&](const char* key) {
    const auto it = config.find(key);
    const auto* value = it == config.end() ? nullptr : it->second.get_if<bool>();
    return value != nullptr && *value;
  };
  if (text("peft_type") != "LORA" || flag("use_dora") || flag("lora_bias"))
    throw graft::ValueError(graft::concat(s.input,
                                          ": only plain LoRA adapters have a GGUF form, this is ",
                                          text("peft_type"), flag("use_dora") ? " with DoRA" : ""));
  const auto file =
      graft::io::SafetensorsFile::open(fs::path(s.input) / "adapter_model.safetensors");
  const double alpha = config.at("lora_alpha").number(), rank = config.at("r").number();
  graft::io::GgufMetadata metadata;
  metadata.set("general.type", std::string("adapter"));
  metadata.set("general.architecture",
               info.architecture == "gemma3_text" ? std::string("gemma3") : info.architecture);
  metadata.set("adapter.type", std::string("lora"));
  // llama.cpp scales by alpha / rank.
  metadata.set("adapter.lora.alpha",
               static_cast<float>(flag("use_rslora") ? alpha * std::sqrt(rank) : alpha));
  std::vector<std::vector<float>> kept;
  std::vector<graft::io::GgufTensorToWrite> tensors;
  kept.reserve(file.tensors().size());
  for (const auto& view : file.tensors()) {
    std::string name = view.name;
    const bool a = name.ends_with(".lora_A.weight"), b = name.ends_with(".lora_B.weight");
    if (!name.starts_with(kPrefix) || (!a && !b) || view.shape.size() != 2)
      throw graft::ValueError(graft::concat(s.input, ": tensor ", name, " has no GGUF form"));
    name = name.substr(kPrefix.size(),
                       name.size() - kPrefix.size() - std::string_view(".lora_A.weight").size());
    auto values = graft::io::to_f32(view);
    if (b && interleaved_rows(info.architecture, name))
      values = reorder_rows(values, view.shape[0], info.head_dim, true);
    kept.push_back(std::move(values));
    graft::io::GgufTensorToWrite t;
    t.name =
        graft::models::detail::gguf_name(name + ".weight", info.architecture == "gemma3_text") +
        (a ? ".lora_a" : ".lora_b");
    t.shape = view.shape;
    t.ggml_type = 0;
    t.data = std::as_bytes(std::span(kept.back()));
    tensors.push_back(std::move(t));
  }
  graft::io::write_gguf(s.output, metadata, tensors);
  std::printf("wrote %zu tensors to %s\n", tensors.size(), s.output.c_str());
}

/// GGUF file -> PEFT folder.
void to_peft(const Settings& s, const graft::BasicSiteTable<float>& table) {
  const auto file = graft::io::GgufFile::open(s.input);
  if (file.metadata().get_string("general.type", "") != "adapter" ||
      file.metadata().get_string("adapter.type", "") != "lora")
    throw graft::ValueError(
        graft::concat(s.input, ": no LoRA adapter (general.type is not adapter)"));
  std::vector<std::vector<float>> kept;
  std::vector<graft::io::TensorToWrite> tensors;
  std::vector<std::string> targets;
  Index rank = 0;
  kept.reserve(file.tensors().size());
  std::size_t used = 0;
  for (const auto* site : table.linear) {
    const std::string name = graft::models::detail::gguf_name(
        site->path() + ".weight", table.info.architecture == "gemma3_text");
    const auto* a = file.find(name + ".lora_a");
    const auto* b = file.find(name + ".lora_b");
    if (a == nullptr || b == nullptr) continue;
    rank = a->rows();
    const std::string key = std::string(kPrefix) + site->path();
    kept.push_back(graft::io::to_f32(*a));
    tensors.push_back(f32_tensor(key + ".lora_A.weight", a->rows(), a->columns(), kept.back()));
    auto values = graft::io::to_f32(*b);
    if (interleaved_rows(table.info.architecture, site->path()))
      values = reorder_rows(values, b->rows(), table.info.head_dim, false);
    kept.push_back(std::move(values));
    tensors.push_back(f32_tensor(key + ".lora_B.weight", b->rows(), b->columns(), kept.back()));
    targets.push_back(site->path());
    used += 2;
  }
  if (used != file.tensors().size())
    throw graft::ValueError(graft::concat(s.input, ": ", file.tensors().size() - used, " of ",
                                          file.tensors().size(),
                                          " tensors belong to no module of the model"));
  fs::create_directories(s.output);
  graft::io::write_safetensors(fs::path(s.output) / "adapter_model.safetensors", tensors);
  const Json config{{"peft_type", "LORA"},
                    {"task_type", "CAUSAL_LM"},
                    {"r", rank},
                    {"target_modules", targets},
                    {"lora_alpha", file.metadata().get_f32("adapter.lora.alpha")},
                    {"lora_dropout", 0.0},
                    {"bias", "none"},
                    {"inference_mode", true},
                    {"base_model_name_or_path", nullptr}};
  const std::string text = graft::io::json_text(config, 2) + "\n";
  graft::io::write_file_atomically(fs::path(s.output) / "adapter_config.json",
                                   std::as_bytes(std::span(text)));
  std::printf("wrote %zu tensors to %s\n", tensors.size(), s.output.c_str());
}

int convert(const Settings& s) {
  const auto model = load_causal(s.model);
  if (fs::is_directory(s.input))
    to_gguf(s, model->info());
  else
    to_peft(s, model->sites());
  return 0;
}

}  // namespace

void add_convert(CLI::App& app, Command& run) {
  auto* c = app.add_subcommand("convert",
                               "Between PEFT folders and GGUF LoRA files, by what the input is");
  auto s = std::make_shared<Settings>();
  c->add_option("--input", s->input, "PEFT folder, or GGUF adapter file")
      ->required()
      ->check(CLI::ExistingPath);
  c->add_option("--output", s->output, "GGUF adapter file, or PEFT folder")->required();
  c->add_option("--model", s->model, "The model that the adapter belongs to")->required();
  c->callback([&run, s] { run = [s] { return convert(*s); }; });
}

}  // namespace cli
