#include <CLI/CLI.hpp>
#include <algorithm>
#include <list>
#include <map>

#include "files.hpp"
#include "graft/adapters/low_rank/lora_config.hpp"
#include "graft/compose/convert.hpp"
#include "labels.hpp"
#include "session.hpp"

namespace cli {
namespace {

namespace fs = std::filesystem;
using graft::concat;
using graft::Index;
using graft::io::Json;

constexpr std::string_view kPrefix = "base_model.model.";

struct ConvertSettings {
  std::string input, output, model, initial;
  bool to_lora = false;
  graft::RankChoice choice;
};

std::vector<float> transposed(const std::vector<float>& values, Index rows, Index cols) {
  std::vector<float> result(values.size());
  for (Index i = 0; i < rows; ++i)
    for (Index j = 0; j < cols; ++j)
      result[static_cast<std::size_t>(j * rows + i)] =
          values[static_cast<std::size_t>(i * cols + j)];
  return result;
}

/// The factors of one module: A [rank, in], B [out, rank]; of an embedding A [rank, vocabulary],
/// B [dim, rank].
struct Pair {
  std::vector<float> a, b;
  Index rank = 0, in = 0, out = 0;
  bool embedding = false;
};

graft::LoRAConfig plain_lora_config(const fs::path& file) {
  const auto map = graft::read_config_file(file);
  const auto type = map.find("peft_type");
  const auto* name = type == map.end() ? nullptr : type->second.get_if<std::string>();
  const auto refuse = [&](const std::string& what) {
    throw graft::ValueError(
        concat(file.string(), ": only plain LoRA adapters have a GGUF form, this one has ", what));
  };
  if (name == nullptr || *name != "LORA")
    refuse(concat("peft_type ", name == nullptr ? "none" : *name));
  graft::LoRAConfig config;
  graft::ConfigReader reader(map);
  config.fields(reader);
  if (config.use_dora) refuse("use_dora");
  if (config.lora_bias) refuse("lora_bias");
  if (config.fan_in_fan_out) refuse("fan_in_fan_out");
  if (config.alpha == 0) refuse("lora_alpha 0");
  return config;
}

std::map<std::string, Pair> read_pairs(const graft::io::SafetensorsFile& file) {
  static constexpr std::pair<std::string_view, bool> kEndings[] = {{".lora_A.weight", true},
                                                                   {".lora_B.weight", false},
                                                                   {".lora_embedding_A", true},
                                                                   {".lora_embedding_B", false}};
  std::map<std::string, Pair> pairs;
  for (const auto& view : file.tensors()) {
    if (view.name.ends_with(".base_layer.weight")) continue;  // a copy of the frozen table
    bool known = false;
    for (const auto& [ending, is_a] : kEndings) {
      if (!view.name.starts_with(kPrefix) || !view.name.ends_with(ending) || view.shape.size() != 2)
        continue;
      known = true;
      auto& pair = pairs[view.name.substr(kPrefix.size(),
                                          view.name.size() - kPrefix.size() - ending.size())];
      pair.embedding = ending.find("embedding") != ending.npos;
      (is_a ? pair.a : pair.b) = graft::io::to_f32(view);
      (is_a ? pair.in : pair.out) = view.shape[is_a ? 1 : 0];
      pair.rank = view.shape[is_a ? 0 : 1];
    }
    if (!known)
      throw graft::ValueError(concat(file.name(), ": tensor ", view.name, " has no GGUF form"));
  }
  return pairs;
}

/// PEFT folder -> GGUF file as llama.cpp loads it with --lora, where ΔW = alpha / rank · B A with
/// the rank of each pair.
void to_gguf(const ConvertSettings& s, const graft::models::Model& model) {
  const fs::path folder = s.input;
  const auto config = plain_lora_config(folder / "adapter_config.json");
  const auto file = graft::io::SafetensorsFile::open(folder / "adapter_model.safetensors");
  const auto& info = model.info();
  const std::string architecture =
      info.architecture == "gemma3_text" ? "gemma3" : info.architecture;
  graft::io::GgufMetadata metadata;
  metadata.set("general.type", std::string("adapter"));
  metadata.set("general.architecture", architecture);
  metadata.set("adapter.type", std::string("lora"));
  metadata.set("adapter.lora.alpha", static_cast<float>(config.alpha));
  std::list<std::vector<float>> kept;
  std::vector<graft::io::GgufTensorToWrite> tensors;
  const auto put = [&](const std::string& tensor, std::vector<Index> shape,
                       std::vector<float> values) {
    kept.push_back(std::move(values));
    tensors.push_back({tensor, std::move(shape), 0, std::as_bytes(std::span(kept.back()))});
  };
  for (auto& [path, pair] : read_pairs(file)) {
    if (pair.a.empty() || pair.b.empty())
      throw graft::ValueError(concat(file.name(), ": ", path, " lacks one of its two factors"));
    // What alpha / rank does not say goes into B: rsLoRA, an alpha of the module's own.
    auto own = config;
    own.rank = pair.rank;
    if (const auto alpha = graft::pattern_value(config.select.alpha_pattern, path))
      own.alpha = alpha->number();
    const double factor = own.scaling() * static_cast<double>(pair.rank) / config.alpha;
    auto b = pair.b;
    if (factor != 1)
      for (float& v : b) v = static_cast<float>(static_cast<double>(v) * factor);
    const std::string target = gguf_name(architecture, path + ".weight");
    if (target == path + ".weight")
      throw graft::ValueError(concat(file.name(), ": ", path, " has no name in GGUF files"));
    if (pair.embedding) {  // llama.cpp looks rows of A up
      put(target + ".lora_a", {pair.in, pair.rank}, transposed(pair.a, pair.rank, pair.in));
    } else {
      if (interleaved_rows(architecture, path)) b = reorder_rows(b, pair.out, info.head_dim, true);
      put(target + ".lora_a", {pair.rank, pair.in}, pair.a);
    }
    put(target + ".lora_b", {pair.out, pair.rank}, std::move(b));
  }
  graft::io::write_gguf(s.output, metadata, tensors);
  say(concat("wrote ", tensors.size(), " tensors to ", s.output));
}

/// GGUF file -> PEFT folder.
void to_peft(const ConvertSettings& s, const graft::models::Model& model) {
  const auto& table = model.sites();
  const auto file = graft::io::GgufFile::open(s.input);
  if (file.metadata().get_string("general.type", "") != "adapter" ||
      file.metadata().get_string("adapter.type", "") != "lora")
    throw graft::ValueError(concat(s.input,
                                   ": no LoRA adapter (metadata general.type is not "
                                   "'adapter', or adapter.type not 'lora')"));
  const std::string architecture =
      file.metadata().get_string("general.architecture", table.info.architecture);
  std::list<std::vector<float>> kept;
  std::vector<graft::io::TensorToWrite> tensors;
  std::map<std::string, Index> ranks;
  const auto put = [&](const std::string& name, Index rows, Index cols, std::vector<float> values) {
    kept.push_back(std::move(values));
    tensors.push_back(
        {name, graft::io::DType::f32, {rows, cols}, std::as_bytes(std::span(kept.back()))});
  };
  const auto take = [&](const std::string& path, Index in, Index out, bool embedding) {
    const std::string name = gguf_name(architecture, path + ".weight");
    const auto* a = file.find(name + ".lora_a");
    const auto* b = file.find(name + ".lora_b");
    if (a == nullptr || b == nullptr) return;
    const Index rank = b->columns();
    const bool fits = embedding ? a->rows() == in && a->columns() == rank
                                : a->columns() == in && a->rows() == rank;
    if (!fits || b->rows() != out || rank < 1)
      throw graft::IoError(concat(s.input, ": the tensors of ", name, " do not fit the model"));
    const std::string key = std::string(kPrefix) + path;
    auto values = graft::io::to_f32(*b);
    if (embedding) {
      put(key + ".lora_embedding_A", rank, in, transposed(graft::io::to_f32(*a), in, rank));
      put(key + ".lora_embedding_B", out, rank, std::move(values));
    } else {
      if (interleaved_rows(architecture, path))
        values = reorder_rows(values, out, table.info.head_dim, false);
      put(key + ".lora_A.weight", rank, in, graft::io::to_f32(*a));
      put(key + ".lora_B.weight", out, rank, std::move(values));
    }
    ranks[path] = rank;
  };
  for (const auto* site : table.embedding)
    take(site->path(), site->table().rows(), site->table().dim(), true);
  for (const auto* site : table.linear)
    take(site->path(), site->in_features(), site->out_features(), false);
  if (ranks.empty() || tensors.size() != file.tensors().size())
    throw graft::ValueError(concat(s.input, ": ", file.tensors().size() - tensors.size(), " of ",
                                   file.tensors().size(),
                                   " tensors belong to no module of the model"));

  std::map<Index, int> frequency;
  for (const auto& [path, rank] : ranks) ++frequency[rank];
  const Index rank = std::max_element(frequency.begin(), frequency.end(), [](auto& x, auto& y) {
                       return x.second < y.second;
                     })->first;
  Json pattern = Json::object(), targets = Json::array();
  for (const auto& [path, own] : ranks) {
    targets.push_back(path);
    if (own != rank) pattern[path] = own;
  }
  const Json config{{"peft_type", "LORA"},
                    {"task_type", "CAUSAL_LM"},
                    {"r", rank},
                    {"target_modules", targets},
                    {"lora_alpha", file.metadata().get_f32("adapter.lora.alpha")},
                    {"lora_dropout", 0.0},
                    {"bias", "none"},
                    {"rank_pattern", pattern},
                    {"inference_mode", true},
                    {"base_model_name_or_path", last_name(s.model)}};
  const fs::path folder = s.output;
  fs::create_directories(folder);
  graft::io::write_safetensors(folder / "adapter_model.safetensors", tensors);
  graft::io::write_file_atomically(folder / "adapter_config.json",
                                   graft::io::json_text(config, 2) + "\n");
  say(concat("wrote ", tensors.size(), " tensors to ", s.output));
}

/// PEFT folder of any method that merges -> PEFT folder of a LoRA, that of a LoRA with its head.
void to_lora(const ConvertSettings& s) {
  const auto labels = load_labels(s.input);
  const auto model = load_for(s.model, labels, s.input).model;
  graft::AdapterModel adapters(model->sites(), methods());
  adapters.load("source", s.input);
  auto& set = graft::convert_to_lora(adapters, "source", "lora", s.choice);
  set.mutable_config()["base_model_name_or_path"] = last_name(s.model);
  adapters.save("lora", s.output);
  if (labels) save_labels(s.output, *labels);
  say(concat("wrote a LoRA of ", millions(set.trainable_elements()), " parameters to ", s.output));
}

int convert(const ConvertSettings& s) {
  if (!fs::exists(s.input)) throw graft::IoError(s.input + ": no such file or folder");
  if (!s.initial.empty()) {
    graft::convert_to_original_weights(s.input, s.initial, s.output);
    say(concat("wrote a LoRA for the original weights to ", s.output));
    return 0;
  }
  if (s.model.empty()) throw graft::ValueError("--model is needed");
  if (s.to_lora || s.choice.rank > 0 || s.choice.energy > 0) {
    to_lora(s);
    return 0;
  }
  const auto model = load_model(s.model, s.input);
  if (fs::is_directory(s.input))
    to_gguf(s, *model);
  else
    to_peft(s, *model);
  return 0;
}

}  // namespace

void add_convert(CLI::App& app, Command& run) {
  auto* c = app.add_subcommand(
      "convert",
      "LoRA adapters between PEFT folders and GGUF files, by what the input is; other adapters to "
      "LoRA with --to-lora");
  auto s = std::make_shared<ConvertSettings>();
  c->add_option("--input", s->input, "PEFT folder, or GGUF adapter file")->required();
  c->add_option("--output", s->output, "GGUF adapter file, or PEFT folder")->required();
  c->add_option("--model", s->model,
                "The model that the adapter belongs to; not needed with --initial");
  c->add_flag("--to-lora", s->to_lora,
              "Write a PEFT folder with a LoRA that does what the adapter does to the weights, for "
              "any method that merges");
  c->add_option("--rank", s->choice.rank, "Its rank; implies --to-lora")
      ->check(CLI::PositiveNumber);
  c->add_option("--energy", s->choice.energy,
                "The smallest rank at each layer that keeps this share of the squared singular "
                "values; implies --to-lora")
      ->check(CLI::Range(0.0, 1.0));
  c->add_option(
      "--initial", s->initial,
      "Folder of the adapter before it was trained, for one whose making rewrote the "
      "frozen weights (PiSSA, OLoRA, CorDA, LoRA-GA): writes a LoRA for the original ones");
  c->callback([&run, s] { run = [s] { return convert(*s); }; });
}

}  // namespace cli
