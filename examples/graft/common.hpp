#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "graft/compose/adapter_model.hpp"
#include "graft/models/causal_model.hpp"
#include "graft/text/dataset.hpp"
#include "graft/text/tokenizer.hpp"

namespace CLI {
class App;
}

/// What the subcommands share. The heavy templates (models, methods) are instantiated in models.cpp
/// and methods.cpp.
namespace cli {

/// Ends the program with this code; the message is printed on one line.
struct Exit {
  int code;
  std::string message;
};

/// A subcommand registers its options and what to run.
using Command = std::function<int()>;
void add_finetune(CLI::App& app, Command& run);
void add_generate(CLI::App& app, Command& run);
void add_evaluate(CLI::App& app, Command& run);
void add_merge(CLI::App& app, Command& run);
void add_inspect(CLI::App& app, Command& run);
void add_convert(CLI::App& app, Command& run);
void add_methods(CLI::App& app, Command& run);

const graft::MethodRegistry<float>& methods();
/// The `peft_type` that a name on the command line means: "lora", "prompt-tuning", "LoHa".
/// @throws ValueError that lists the methods
std::string method_type(const std::string& name);

std::unique_ptr<graft::models::Model> load_model(const std::filesystem::path& path);
/// The same, for commands that need a language model. @throws ValueError for another kind
std::unique_ptr<graft::models::CausalModel> load_causal(const std::filesystem::path& path);
graft::text::Tokenizer load_tokenizer(const std::filesystem::path& path);

/// What a model file holds, for messages.
struct ModelFile {
  graft::Index parameters = 0;
  std::uintmax_t bytes = 0;
  std::string types;  ///< element types, the one with most bytes first: "Q4_1, F32"
};
ModelFile describe_model(const std::filesystem::path& path);
/// "model.gguf: llama, 30 layers of width 576, 134.5 M parameters, 88.5 MiB mapped (Q4_1, F32)"
std::string model_line(const std::filesystem::path& path, const graft::ModelInfo& info,
                       const ModelFile& file);
/// Last part of a path, also of one that ends in a slash.
std::string last_name(const std::filesystem::path& path);

/// Data for a language model, by the options that finetune and evaluate have in common.
struct DataOptions {
  std::string data, documents = "file", chat_template;
  graft::Index sequence_length = 256;
  bool no_packing = false, assistant_only = false;
};
void add_data_options(CLI::App& command, DataOptions& options);
graft::text::LanguageData load_data(const DataOptions& options,
                                    const graft::text::Tokenizer& tokenizer);
/// "text.txt: 1 document, 1201341 tokens in 4693 sequences"
std::string data_line(const DataOptions& options, const graft::text::LanguageData& data);

/// Loads adapters given as FOLDER or NAME=FOLDER and activates them all.
void load_adapters(graft::AdapterModel& model, const std::vector<std::string>& folders);

double peak_rss_mib();
/// Memory of the process now.
double rss_mib();
std::uintmax_t bytes_of(const std::filesystem::path& path);
std::string mib(std::uintmax_t bytes);
/// "134.5 M"
std::string millions(graft::Index count);
std::string format_number(double value, const char* format);
std::vector<std::string> split(const std::string& text, char separator);
/// True if stdout is a terminal.
bool on_terminal();
void set_threads(int threads);
void print_json(const graft::io::Json& json);
/// Prints a line at once.
void say(const std::string& text);

}  // namespace cli
