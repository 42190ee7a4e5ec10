#include "session.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <optional>

#include "graft/io/gguf.hpp"
#include "graft/io/safetensors.hpp"
#include "graft/models/architecture.hpp"
#include "graft/text/load_tokenizer.hpp"
#include "graft/train/not_finite.hpp"

namespace cli {

namespace fs = std::filesystem;
using graft::concat;
using graft::Index;

std::unique_ptr<graft::models::CausalModel> load_causal(const fs::path& path) {
  auto model = load_model(path);
  auto* causal = dynamic_cast<graft::models::CausalModel*>(model.get());
  if (causal == nullptr)
    throw graft::ValueError(concat(path.string(), ": architecture ", model->info().architecture,
                                   " is no language model"));
  model.release();
  return std::unique_ptr<graft::models::CausalModel>(causal);
}

graft::text::Tokenizer load_tokenizer(const fs::path& path) {
  return graft::text::load_tokenizer(path);
}

ModelFile describe_model(const fs::path& path) {
  ModelFile result;
  std::map<std::string, std::uintmax_t> types;
  const auto count = [&](const std::string& type, Index elements, std::size_t bytes) {
    result.parameters += elements;
    result.bytes += bytes;
    types[type] += bytes;
  };
  if (fs::is_directory(path)) {
    const auto file = graft::io::SafetensorsModel::open(path);
    for (const auto& t : file.tensors())
      count(std::string(graft::io::dtype_info(t.dtype).name), t.elements(), t.data.size());
  } else {
    const auto file = graft::io::GgufFile::open(path);
    for (const auto& t : file.tensors()) count(t.type_name(), t.elements(), t.data.size());
  }
  std::vector<std::pair<std::uintmax_t, std::string>> order;
  for (const auto& [type, bytes] : types) order.emplace_back(bytes, type);
  std::sort(order.rbegin(), order.rend());
  for (const auto& [bytes, type] : order) result.types += (result.types.empty() ? "" : ", ") + type;
  return result;
}

std::string model_line(const fs::path& path, const graft::ModelInfo& info, const ModelFile& file) {
  return concat(last_name(path), ": ", info.architecture, ", ", info.layers, " layers of width ",
                info.hidden_size, ", ", millions(file.parameters), " parameters, ", mib(file.bytes),
                " mapped from the file (", file.types, ")");
}

void add_data_options(CLI::App& command, DataOptions& options) {
  command
      .add_option("--data", options.data,
                  "Plain text, or .jsonl with messages, prompt and completion, or text")
      ->required();
  command.add_option("--sequence-length", options.sequence_length, "Tokens in a row")
      ->check(CLI::Range(2, 1 << 20));
  command
      .add_option("--documents", options.documents,
                  "What a document of plain text is: file, blank-line (paragraphs) or line")
      ->check(CLI::IsMember({"file", "blank-line", "line"}));
  command.add_flag("--no-packing", options.no_packing, "Each document makes rows of its own");
  command.add_flag("--assistant-loss-only", options.assistant_only,
                   "Only what the assistant says counts in the loss");
  command.add_option("--chat-template", options.chat_template,
                     "Built-in template in place of the model's: chatml, llama2, llama3, gemma, "
                     "zephyr, mistral");
}

graft::text::DocumentUnit document_unit(const std::string& documents) {
  using graft::text::DocumentUnit;
  return documents == "line"         ? DocumentUnit::line
         : documents == "blank-line" ? DocumentUnit::blank_line
                                     : DocumentUnit::file;
}

graft::text::LanguageData load_data(const DataOptions& from,
                                    const graft::text::Tokenizer& tokenizer) {
  if (!fs::exists(from.data)) throw graft::IoError(from.data + ": no such data file");
  graft::text::LanguageDataOptions options;
  options.sequence_length = from.sequence_length;
  options.packing = !from.no_packing;
  options.unit = document_unit(from.documents);
  options.answers_only = from.assistant_only;
  std::optional<graft::text::ChatTemplate> chat;
  if (!from.chat_template.empty())
    chat.emplace(graft::text::ChatTemplate::named(from.chat_template));
  return graft::text::load_language_data(from.data, tokenizer, options, chat);
}

std::string data_line(const DataOptions& options, const graft::text::LanguageData& data) {
  std::string text = concat(last_name(options.data), ": ", data.documents,
                            data.documents == 1 ? " document, " : " documents, ", data.tokens,
                            " tokens in ", data.examples.size(), " sequences");
  if (data.truncated > 0)
    text += concat(", ", data.truncated, " cut to ", options.sequence_length, " tokens");
  if (data.dropped > 0)
    text += concat(", ", data.dropped, " left out for want of anything to learn");
  return text;
}

fs::path adapter_folder(const std::string& from) {
  const auto equals = from.find('=');
  return equals == from.npos ? from : from.substr(equals + 1);
}

namespace {

/// What an adapter says of the model that it was trained on.
struct AdapterBase {
  std::string name;  ///< last part of its path; empty: not known
  std::string type;  ///< its class, where the folder names one that is known
};
AdapterBase base_of(const fs::path& folder) {
  const auto config = graft::read_config_file(folder / "adapter_config.json");
  AdapterBase base;
  const auto text = [](const graft::ConfigValue::Map& map, const char* key) {
    const auto it = map.find(key);
    const auto* value = it == map.end() ? nullptr : it->second.get_if<std::string>();
    return value == nullptr ? std::string() : *value;
  };
  if (const auto path = text(config, "base_model_name_or_path"); !path.empty())
    base.name = last_name(path);
  const auto it = config.find("auto_mapping");
  const auto* mapping = it == config.end() ? nullptr : it->second.get_if<graft::ConfigValue::Map>();
  if (mapping == nullptr) return base;
  const auto name = text(*mapping, "base_model_class");
  for (const auto& one : graft::models::kArchitectures) {
    const std::string_view rest = name.starts_with(one.name)
                                      ? std::string_view(name).substr(one.name.size())
                                      : std::string_view();
    if (rest.starts_with("For") || rest.starts_with("Model") || rest.starts_with("LMHead"))
      base.type = one.type;
  }
  return base;
}

/// "bert, 6 layers of width 384"
std::string sizes_of(const graft::ModelInfo& info) {
  return concat(info.architecture, ", ", info.layers, " layers of width ", info.hidden_size);
}

/// Whether what is missing is there under the names that it has in a model without a head.
bool is_of_body(const graft::LoadReport& report, const graft::ModelInfo& info) {
  const auto* architecture = graft::models::find_architecture(info.architecture);
  const std::string whole = "base_model.model.";
  return architecture != nullptr &&
         std::any_of(report.unexpected.begin(), report.unexpected.end(), [&](const auto& key) {
           if (!key.starts_with(whole)) return false;
           const auto name = concat(whole, architecture->body, ".", key.substr(whole.size()));
           return std::find(report.missing.begin(), report.missing.end(), name) !=
                  report.missing.end();
         });
}

void warn_of_base(const fs::path& folder, const AdapterBase& trained, const fs::path& base,
                  const graft::ModelInfo& info) {
  const auto warn = [&](const std::string& then, const std::string& now) {
    std::fprintf(stderr, "graft: warning: %s was trained on '%s', not on '%s'\n", folder.c_str(),
                 then.c_str(), now.c_str());
  };
  if (!trained.name.empty() && trained.name != last_name(base)) warn(trained.name, last_name(base));
  if (!trained.type.empty() && trained.type != info.architecture &&
      graft::models::find_architecture(info.architecture) != nullptr)
    warn(trained.type, info.architecture);
}

void expect_finite_values(const graft::AdapterSet<float>& set, const fs::path& folder) {
  for (const auto& [key, tensor] : set.tensors()) {
    if (tensor.parameter && graft::has_fault(tensor.parameter.value()))
      throw graft::ValueError(concat((folder / "adapter_model.safetensors").string(), ": '", key,
                                     "' has values that are not finite"));
  }
}

}  // namespace

void load_adapters(graft::AdapterModel& model, const std::vector<std::string>& folders,
                   const fs::path& base) {
  std::vector<std::string> names;
  for (const auto& from : folders) {
    const auto equals = from.find('=');
    const std::string name =
        equals != from.npos ? from.substr(0, equals) : concat("adapter", names.size());
    const fs::path folder = adapter_folder(from);
    if (!fs::is_directory(folder))
      throw graft::IoError(folder.string() + ": no such adapter folder");
    const auto trained = base_of(folder);
    const auto both = [&] {
      return concat(
          "; the adapter was trained on ",
          trained.name.empty() ? "a model that it does not name" : concat("'", trained.name, "'"),
          ", this model is '", last_name(base), "' (", sizes_of(model.sites().info), ")");
    };
    graft::LoadReport report;
    try {
      model.load(name, folder, false, &report);
    } catch (const graft::ValueError& error) {
      if (trained.name.empty() || trained.name == last_name(base)) throw;
      throw graft::ValueError(error.what() + both());
    }
    // Adapters of encoders without a head may change a pooler that the model's file lacks.
    const auto pooler = std::erase_if(report.unexpected, [](const std::string& key) {
      return key.starts_with("base_model.model.pooler.");
    });
    if (pooler > 0)
      std::fprintf(stderr, "graft: warning: %s: %zu tensors of the pooler are left out\n",
                   folder.c_str(), pooler);
    if (!report.ok()) {
      const bool bare = is_of_body(report, model.sites().info);
      model.remove(name);
      throw graft::ValueError(
          concat((folder / "adapter_model.safetensors").string(), ": ", report.text(),
                 bare ? "; it was trained on the model without a head: graft merge and graft embed "
                        "take it"
                      : "",
                 both()));
    }
    expect_finite_values(model.at(name), folder);
    warn_of_base(folder, trained, base, model.sites().info);
    names.push_back(name);
  }
  model.activate(names);
}

void fail_not_finite(const graft::models::Model& model, const graft::AdapterModel& adapters) {
  const auto tensor = graft::first_not_finite(model, adapters);
  throw Exit{1,
             concat("what the model gives is not finite; ",
                    tensor.empty()
                        ? "no layer or adapter has a weight that is not: an activation overflowed"
                        : tensor)};
}

void expect_finite(const graft::Tensor& outputs, const graft::models::Model& model,
                   const graft::AdapterModel& adapters) {
  if (!std::all_of(outputs.begin(), outputs.end(), [](float v) { return std::isfinite(v); }))
    fail_not_finite(model, adapters);
}

}  // namespace cli
