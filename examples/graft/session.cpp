#include "session.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <map>
#include <optional>

#include "graft/io/gguf.hpp"
#include "graft/io/safetensors.hpp"
#include "graft/text/load_tokenizer.hpp"

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

/// Warns if the adapter in a folder was trained on a model of another name than that at `base`.
void compare_base(const fs::path& folder, const fs::path& base) {
  const auto config = graft::read_config_file(folder / "adapter_config.json");
  const auto it = config.find("base_model_name_or_path");
  const auto* name = it == config.end() ? nullptr : it->second.get_if<std::string>();
  if (name == nullptr || name->empty() || last_name(*name) == last_name(base)) return;
  std::fprintf(stderr, "graft: warning: %s was trained on '%s', not on '%s'\n", folder.c_str(),
               name->c_str(), last_name(base).c_str());
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
    model.load(name, folder);
    compare_base(folder, base);
    names.push_back(name);
  }
  model.activate(names);
}

}  // namespace cli
