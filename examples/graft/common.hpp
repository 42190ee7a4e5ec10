#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "graft/compose/adapter_model.hpp"
#include "graft/models/causal_model.hpp"
#include "graft/text/tokenizer.hpp"

/// What the subcommands share. The heavy templates (models, methods) are instantiated in
/// common.cpp.
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
std::unique_ptr<graft::models::Model> load_model(const std::filesystem::path& path);
/// The same, for commands that need a language model. @throws ValueError for another kind
std::unique_ptr<graft::models::CausalModel> load_causal(const std::filesystem::path& path);
graft::text::Tokenizer load_tokenizer(const std::filesystem::path& path);

/// Loads adapters given as FOLDER or NAME=FOLDER and activates them all.
void load_adapters(graft::AdapterModel& model, const std::vector<std::string>& folders);

double peak_rss_mib();
std::uintmax_t bytes_of(const std::filesystem::path& path);
std::string mib(std::uintmax_t bytes);
std::vector<std::string> split(const std::string& text, char separator);
/// True if stdout is a terminal.
bool on_terminal();
void set_threads(int threads);
void print_json(const graft::io::Json& json);
graft::models::Batch batch_of_text(const std::vector<std::int32_t>& ids);

}  // namespace cli
