#include <CLI/CLI.hpp>
#include <charconv>
#include <list>
#include <map>
#include <optional>
#include <set>

#include "files.hpp"
#include "graft/compose/tied_head.hpp"
#include "graft/quant/format.hpp"
#include "graft/tensor/transposed.hpp"
#include "labels.hpp"

namespace cli {
namespace {

namespace fs = std::filesystem;
using graft::concat;
using graft::Index;
using graft::Tensor;
using graft::io::DType;
using graft::io::Json;
using graft::quant::Format;

struct MergeSettings {
  std::string model, output, dtype = "auto";
  std::vector<std::string> adapters;
};

const std::map<std::string, Format> kFormats{
    {"f32", Format::f32},   {"f16", Format::f16},   {"bf16", Format::bf16}, {"q8_0", Format::q8_0},
    {"q5_1", Format::q5_1}, {"q5_0", Format::q5_0}, {"q4_1", Format::q4_1}, {"q4_0", Format::q4_0}};

/// Weights by their names in Hugging Face files.
using Weights = std::map<std::string, Tensor>;

/// A linear weight as files hold it.
Tensor file_weight(const graft::BasicLinearSite<float>& site) {
  const Tensor w = site.base().dense_weight();
  if (site.fan_in_fan_out) return graft::transposed(w);
  return site.conv.kernel.empty() ? w : w.reshape(site.conv.weight_shape(w.rows()));
}

void add_linear(Weights& weights, const graft::models::Model& model,
                const graft::BasicLinearSite<float>& site) {
  const std::string name = model.file_name(site.path());
  weights[name + ".weight"] = file_weight(site);
  if (!site.base().bias()) return;
  weights[name + ".bias"] = site.base().bias();
  if (!site.second_bias.empty()) weights[site.second_bias] = site.base().bias();
}
void add_norm(Weights& weights, const graft::models::Model& model,
              const graft::BasicNormSite<float>& site) {
  const std::string name = model.file_name(site.path());
  if (site.norm().weight) weights[name + ".weight"] = site.norm().weight;
  if (site.norm().bias) weights[name + ".bias"] = site.norm().bias;
}

/// What a merge changed.
struct Merged {
  Weights changed;
  std::optional<Labels> labels;    ///< of a model with a head that was trained
  std::vector<std::string> added;  ///< modules that the model's file may lack
  std::set<std::string> copies;    ///< of another changed weight, which files may hold once
  std::string tied_weight;         ///< of a head that was the embedding table
  bool tied = false;               ///< it still is
};

Merged merge_adapters(graft::models::Model& model, graft::AdapterModel& adapters) {
  auto& table = model.sites();
  const std::set<std::string> active(adapters.active().begin(), adapters.active().end());
  const auto touched = [&](const auto* site) {
    return std::any_of(site->adapters().begin(), site->adapters().end(),
                       [&](const auto& a) { return active.contains(a.name); });
  };
  std::set<const void*> sites;
  const graft::BasicLinearSite<float>* tied_head = nullptr;
  for (const auto* site : table.linear) {
    if (touched(site) || site->biases.active) sites.insert(site);
    if (graft::is_tied_head(*site, table)) tied_head = site;
  }
  std::vector<const graft::BasicEmbeddingSite<float>*> followers;
  for (const auto* site : table.embedding) {
    if (touched(site)) sites.insert(site);
    if (graft::is_tied_embedding(*site, table)) followers.push_back(site);
  }
  for (const auto* site : table.norm)
    if (touched(site) || site->biases.active) sites.insert(site);

  adapters.merge({.dequantize = true});
  Merged result;
  for (const auto* site : table.linear)
    if (sites.contains(site)) add_linear(result.changed, model, *site);
  for (const auto* site : table.embedding)
    if (sites.contains(site)) result.changed[site->path() + ".weight"] = site->table().dense();
  for (const auto* site : table.norm)
    if (sites.contains(site)) add_norm(result.changed, model, *site);
  for (const auto* site : followers) {
    if (graft::is_tied_embedding(*site, table)) continue;
    const auto* first = table.embedding.front();
    if (!std::ranges::equal(site->table().dense().span(), first->table().dense().span()))
      throw graft::ValueError(concat("merge: the adapters change ", site->path(), " and ",
                                     first->path(), " differently; files hold one table for both"));
    result.copies.insert(site->path() + ".weight");
  }
  if (tied_head != nullptr) result.tied_weight = model.file_name(tied_head->path()) + ".weight";
  result.tied = tied_head != nullptr && graft::is_tied_head(*tied_head, table);
  if (tied_head != nullptr && !result.tied) add_linear(result.changed, model, *tied_head);
  if (result.changed.empty()) throw graft::ValueError("merge: the adapters change no weight");
  return result;
}

/// Every weight of a model.
Weights all_weights(const graft::models::Model& model, bool tied) {
  Weights weights;
  const auto& table = model.sites();
  for (const auto* site : table.embedding)
    weights[site->path() + ".weight"] = site->table().dense();
  for (const auto* site : table.linear)
    if (!tied || !table.info.is_output_layer(site->path())) add_linear(weights, model, *site);
  for (const auto* site : table.norm) add_norm(weights, model, *site);
  return weights;
}

DType dtype_of(Format format) {
  return format == Format::f16 ? DType::f16 : format == Format::bf16 ? DType::bf16 : DType::f32;
}
Format format_of(DType dtype) {
  return dtype == DType::f16 ? Format::f16 : dtype == DType::bf16 ? Format::bf16 : Format::f32;
}
const char* torch_name(Format format) {
  return format == Format::f16 ? "float16" : format == Format::bf16 ? "bfloat16" : "float32";
}

/// A number that came from an f32, as the decimal that was meant: 1e-05, not 9.99999974737875e-06.
double decimal(double value) {
  const auto narrow = static_cast<float>(value);
  if (static_cast<double>(narrow) != value) return value;
  char text[32];
  const auto end = std::to_chars(text, text + sizeof text, narrow).ptr;
  std::from_chars(text, end, value);
  return value;
}

/// Tensors for a safetensors file, with the bytes they point to.
class Output {
 public:
  void add(const std::string& name, const std::vector<Index>& shape, const float* values,
           Index count, Format format) {
    bytes_.emplace_back(static_cast<std::size_t>(graft::quant::row_bytes(format, count)));
    graft::quant::encode(format, values, count, bytes_.back().data());
    tensors_.push_back({name, dtype_of(format), shape, bytes_.back()});
  }
  void add(const std::string& name, const Tensor& t, Format format) {
    add(name, {t.shape().begin(), t.shape().end()}, t.data(), t.size(), format);
  }
  void copy(const graft::io::TensorView& view, const std::string& name) {
    tensors_.push_back({name, view.dtype, view.shape, view.data});
  }
  void write(const fs::path& path) const { graft::io::write_safetensors(path, tensors_); }

 private:
  std::vector<graft::io::TensorToWrite> tensors_;
  std::list<std::vector<std::byte>> bytes_;
};

/// The changed weight that a tensor of a file stands for: files may leave out or add the name of
/// the whole model in front.
Weights::const_iterator find_changed(const Weights& changed, const std::string& name) {
  if (const auto it = changed.find(name); it != changed.end()) return it;
  return std::find_if(changed.begin(), changed.end(), [&](const auto& entry) {
    return graft::has_suffix(entry.first, name) || graft::has_suffix(name, entry.first);
  });
}

void copy_texts(const fs::path& from, const fs::path& to) {
  for (const auto& entry : fs::directory_iterator(from)) {
    const std::string name = entry.path().filename().string();
    const std::string extension = entry.path().extension().string();
    const bool text = extension == ".json" || extension == ".txt" || extension == ".model" ||
                      extension == ".jinja";
    if (entry.is_regular_file() && text && name != "config.json" && !name.ends_with(".index.json"))
      fs::copy_file(entry.path(), to / name, fs::copy_options::overwrite_existing);
  }
}

void write_config(const fs::path& folder, const Json& config) {
  graft::io::write_file_atomically(folder / "config.json", graft::io::json_text(config, 2) + "\n");
}

/// What stands before names of the tensors of a file in a model with a head: "encoder.…" ->
/// "bert.encoder.…"; empty where the file is one of a model with a head.
std::string prefix_below_head(const graft::io::SafetensorsModel& file, std::string_view body) {
  const std::string prefix = concat(body, ".");
  const auto& tensors = file.tensors();
  const bool whole = std::any_of(tensors.begin(), tensors.end(),
                                 [&](const auto& view) { return view.name.starts_with(prefix); });
  return whole ? "" : prefix;
}

/// The token by which a classifier may tell padding from text; none if it may end a text.
std::optional<std::int32_t> padding_of(const graft::text::Tokenizer& tokenizer) {
  const auto& special = tokenizer.special();
  if (special.pad == graft::text::kNoToken && special.eos == graft::text::kNoToken)
    return std::nullopt;
  const auto frame = tokenizer.encode("");
  if (std::ranges::find(frame, tokenizer.pad_id()) != frame.end()) return std::nullopt;
  return tokenizer.pad_id();
}

/// What a config.json of a supported model says it is.
const graft::models::Architecture& architecture_of(const Json& config) {
  return *graft::models::find_architecture(config.at("model_type").get<std::string>());
}

/// Fields of config.json that say what the head is for. A decoder's goes by the last token that is
/// no padding, so Python wants to know that one.
void describe_head(Json& config, const Labels& labels, const fs::path& source) {
  const auto& architecture = architecture_of(config);
  config["architectures"] = Json::array({architecture_of_task(architecture, labels.task)});
  if (labels.task == kMaskedLanguage) return;
  if (architecture.is_decoder() &&
      (!config.contains("pad_token_id") || config["pad_token_id"].is_null()))
    if (const auto id = padding_of(load_tokenizer(source))) config["pad_token_id"] = *id;
  Json names = Json::object(), numbers = Json::object();
  auto list = labels.names;
  if (list.empty()) list = {"LABEL_0"};
  for (std::size_t i = 0; i < list.size(); ++i) {
    names[std::to_string(i)] = list[i];
    numbers[list[i]] = i;
  }
  config["id2label"] = names;
  config["label2id"] = numbers;
  if (labels.task == "regression") config["problem_type"] = "regression";
}

/// A folder from a folder: what did not change is copied byte for byte.
void write_from_folder(const MergeSettings& s, const Merged& merged, const fs::path& work) {
  const fs::path source = s.model;
  const auto file = graft::io::SafetensorsModel::open(source);
  const bool keep = s.dtype == "auto";
  Json config = graft::io::read_json(source / "config.json");
  const auto& architecture = architecture_of(config);
  const std::string prefix = merged.labels ? prefix_below_head(file, architecture.body) : "";
  const auto is_added = [&](const std::string& name) {
    return std::any_of(merged.added.begin(), merged.added.end(),
                       [&](const std::string& module) { return name.starts_with(module + "."); });
  };
  const auto name_of = [&](const std::string& name) {
    return is_added(name) ? name : prefix + name;
  };
  Output output;
  std::set<std::string> placed;
  Format common = Format::f32;
  for (const auto& view : file.tensors()) {
    // A classifier takes the place of the head of a language model; T5's of tokens has no decoder.
    if (merged.labels && merged.labels->task != kMaskedLanguage &&
        (view.name.starts_with("lm_head.") ||
         (architecture.family == graft::models::Family::t5 &&
          merged.labels->task == "token-classification" &&
          name_of(view.name).starts_with("transformer.decoder."))))
      continue;
    const Format format = keep ? format_of(view.dtype) : kFormats.at(s.dtype);
    const bool is_float =
        view.dtype == DType::f32 || view.dtype == DType::f16 || view.dtype == DType::bf16;
    const auto it = find_changed(merged.changed, view.name);
    if (it != merged.changed.end()) {
      placed.insert(it->first);
      if (it->second.size() != view.elements() && is_added(it->first)) {
        output.add(name_of(view.name), it->second, format);
        continue;
      }
      if (it->second.size() != view.elements())
        throw graft::ValueError(concat("merge: ", view.name, " has ", view.elements(),
                                       " elements, the merged weight ", it->second.size()));
      output.add(name_of(view.name), view.shape, it->second.data(), it->second.size(), format);
      common = format;
    } else if (keep || !is_float) {
      output.copy(view, name_of(view.name));
    } else {
      const auto values = graft::io::to_f32(view);
      output.add(name_of(view.name), view.shape, values.data(), std::ssize(values), format);
    }
  }
  for (const auto& [name, tensor] : merged.changed) {
    if (placed.contains(name) || merged.copies.contains(name)) continue;
    if (!name.ends_with(".bias") && name != merged.tied_weight && !is_added(name))
      throw graft::ValueError(concat("merge: ", file.name(), " has no tensor for ", name));
    output.add(name, tensor, common);
  }
  output.write(work / "model.safetensors");

  if (merged.labels) describe_head(config, *merged.labels, source);
  if (!merged.tied_weight.empty()) {
    // T5 takes this from the other where it is not there.
    if (config.value("model_type", "") == "t5" && !config.contains("scale_decoder_outputs"))
      config["scale_decoder_outputs"] = true;
    config["tie_word_embeddings"] = merged.tied;
  }
  if (!keep) {
    config.erase("torch_dtype");
    config["dtype"] = torch_name(kFormats.at(s.dtype));
  }
  write_config(work, config);
  copy_texts(source, work);
}

/// A folder from a GGUF file: all weights decoded, config.json and tokenizer made from the
/// metadata.
void write_from_gguf(const MergeSettings& s, const graft::models::Model& model,
                     const Merged& merged, const fs::path& work) {
  const auto* llama = llama_config(model);
  if (llama == nullptr)
    throw graft::ValueError(
        merged.labels
            ? "merge: a model with a head for labels is written as a folder, and a GGUF file "
              "becomes a folder only if its model is of the LLaMA family; predict opens model and "
              "adapter as they are"
            : "merge: a GGUF file becomes a folder only if its model is of the LLaMA family; write "
              "a .gguf file instead");
  const auto& c = *llama;
  if (c.rope.type != "default" && !c.rope.type.empty())
    throw graft::ValueError(
        concat("merge: no config.json for the rotary embedding '", c.rope.type, "'"));
  const Format format = s.dtype == "auto" ? Format::f32 : kFormats.at(s.dtype);
  Output output;
  const auto weights = all_weights(model, merged.tied);
  for (const auto& [name, tensor] : weights) output.add(name, tensor, format);
  output.write(work / "model.safetensors");

  const auto tokenizer = load_tokenizer(s.model);
  const auto id = [](std::int32_t token) { return token >= 0 ? Json(token) : Json(); };
  const auto biased = [&](const char* module) {
    return weights.contains(concat("model.layers.0.", module, ".bias"));
  };
  const auto* architecture = graft::models::find_architecture(c.model_type);
  Json config{{"architectures", Json::array({concat(architecture->name, "ForCausalLM")})},
              {"model_type", c.model_type},
              {"vocab_size", c.vocabulary},
              {"hidden_size", c.hidden_size},
              {"intermediate_size", c.intermediate_size},
              {"num_hidden_layers", c.layers},
              {"num_attention_heads", c.heads},
              {"num_key_value_heads", c.kv_heads},
              {"head_dim", c.head_dim},
              {"max_position_embeddings", c.max_positions},
              {"rms_norm_eps", decimal(c.rms_norm_eps)},
              {"rope_theta", decimal(c.rope.theta)},
              {"hidden_act", "silu"},
              {"tie_word_embeddings", merged.tied},
              {"bos_token_id", id(tokenizer.bos_id())},
              {"eos_token_id", id(tokenizer.eos_id())},
              {"dtype", torch_name(format)}};
  if (c.model_type == "llama") {
    config["attention_bias"] = biased("self_attn.q_proj");
    config["mlp_bias"] = biased("mlp.up_proj");
  }
  if (merged.labels) describe_head(config, *merged.labels, s.model);
  write_config(work, config);
  const auto source = graft::io::GgufFile::open(s.model);
  if (!write_tokenizer(source.metadata(), s.model, work))
    say("note: the tokenizer of this file has no tokenizer.json form; take the original model's");
}

/// A GGUF file from a GGUF file: what did not change is copied byte for byte.
void write_gguf_file(const MergeSettings& s, const graft::models::Model& model,
                     const Merged& merged) {
  const auto source = graft::io::GgufFile::open(s.model);
  const std::string architecture = source.metadata().get_string("general.architecture");
  struct New {
    Format format;
    std::vector<Index> shape;
    std::vector<std::byte> bytes;
  };
  std::map<std::string, New> replaced;
  for (const auto& [name, t] : merged.changed) {
    const std::string target = gguf_name(architecture, name);
    std::vector<float> values(t.begin(), t.end());
    if (interleaved_rows(architecture, name))
      values = reorder_rows(values, t.dim(0), model.info().head_dim, true);
    Format format = Format::f32;
    if (t.rank() >= 2) {
      const auto* old = source.find(target);
      const bool plain =
          old != nullptr && (old->format() == Format::f32 || old->format() == Format::f16 ||
                             old->format() == Format::bf16);
      format = s.dtype != "auto" ? kFormats.at(s.dtype) : plain ? old->format() : Format::q8_0;
      if (t.cols() % graft::quant::format_info(format).block_elements != 0) format = Format::f16;
    }
    const Index row = graft::quant::row_bytes(format, t.cols());
    New item{format,
             {t.shape().begin(), t.shape().end()},
             std::vector<std::byte>(static_cast<std::size_t>(row * t.rows()))};
    graft::quant::encode(format, values.data(), t.size(), item.bytes.data());
    replaced[target] = std::move(item);
  }
  std::vector<graft::io::GgufTensorToWrite> tensors;
  const auto put = [&](const std::string& name, const New& item) {
    tensors.push_back(
        {name, item.shape, graft::quant::format_info(item.format).ggml_type, item.bytes});
  };
  for (const auto& t : source.tensors()) {
    if (const auto it = replaced.find(t.name); it != replaced.end()) {
      put(t.name, it->second);
    } else {
      tensors.push_back({t.name, t.shape, t.ggml_type, t.data});
    }
  }
  for (const auto& [name, item] : replaced)
    if (source.find(name) == nullptr) put(name, item);
  graft::io::write_gguf(s.output, source.metadata(), tensors);
}

int merge(const MergeSettings& s) {
  const bool to_gguf = fs::path(s.output).extension() == ".gguf";
  const bool from_folder = fs::is_directory(s.model);
  if (to_gguf && from_folder)
    throw graft::ValueError("--output: a GGUF file can be written from a GGUF model only");
  if (!to_gguf && s.dtype.starts_with("q"))
    throw graft::ValueError(
        concat("--dtype: ", s.dtype, " is for GGUF files; a folder takes f32, f16 or bf16"));
  if (!to_gguf && fs::exists(s.output) && (!fs::is_directory(s.output) || !fs::is_empty(s.output)))
    throw graft::ValueError(concat("--output: ", s.output, " exists already"));
  const auto labels = labels_of_adapters(s.adapters);
  if (labels && to_gguf)
    throw graft::ValueError("--output: a model with a head for labels is written as a folder");
  const auto opened = load_for(s.model, labels, adapter_folder(s.adapters.front()));
  const auto& model = opened.model;
  graft::AdapterModel adapters(model->sites(), methods());
  load_adapters(adapters, s.adapters, s.model);
  Merged merged = merge_adapters(*model, adapters);
  merged.labels = labels;
  merged.added = opened.head;
  if (to_gguf) {
    write_gguf_file(s, *model, merged);
  } else {
    const fs::path target = fs::absolute(s.output).lexically_normal();
    const fs::path folder = target.filename().empty() ? target.parent_path() : target;
    const fs::path work =
        folder.parent_path() / concat(".", folder.filename().string(), ".writing");
    fs::remove_all(work);
    fs::create_directories(work);
    try {
      if (from_folder) {
        write_from_folder(s, merged, work);
      } else {
        write_from_gguf(s, *model, merged, work);
      }
    } catch (...) {
      fs::remove_all(work);
      throw;
    }
    fs::remove(folder);  // an empty one
    fs::rename(work, folder);
    graft::io::flush_folder(folder.parent_path());
  }
  say(concat("merged ", merged.changed.size(), " weights into ", s.output));
  return 0;
}

}  // namespace

void add_merge(CLI::App& app, Command& run) {
  auto* c = app.add_subcommand("merge",
                               "Fold adapters into the model: a safetensors folder or a GGUF file");
  auto s = std::make_shared<MergeSettings>();
  auto unused = std::make_shared<std::string>();
  c->option_defaults()->always_capture_default();
  c->add_option("--config", *unused, "JSON file with any of these options; the command line wins");
  c->add_option("--model", s->model, "GGUF file or Hugging Face folder")->required();
  c->add_option("--adapter", s->adapters,
                "Adapter FOLDER or NAME=FOLDER; may be repeated, or separated by commas")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->delimiter(',')
      ->required();
  c->add_option("--output", s->output, "New folder, or a name that ends in .gguf")->required();
  c->add_option("--dtype", s->dtype,
                "Of the weights. auto: that of the model; where it is quantised, f32 in a folder "
                "and q8_0 in a GGUF file. f32, f16, bf16; in a GGUF file also q8_0, q5_1, q5_0, "
                "q4_1, q4_0, then of the merged weights only")
      ->check(
          CLI::IsMember({"auto", "f32", "f16", "bf16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0"}));
  c->callback([&run, s, unused] { run = [s, unused] { return merge(*s); }; });
}

}  // namespace cli
