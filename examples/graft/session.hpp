#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "command.hpp"
#include "graft/compose/adapter_model.hpp"
#include "graft/models/causal_model.hpp"
#include "graft/text/dataset.hpp"
#include "graft/text/tokenizer.hpp"

// Compiled once, in methods.cpp and models.cpp.
extern template class graft::BasicAdapterModel<float>;
extern template class graft::models::BasicCausalModel<float>;

/// Models, adapters and data of the subcommands that work on them.
namespace cli {

const graft::MethodRegistry<float>& methods();
/// The `peft_type` that a name on the command line means: "lora", "prompt-tuning", "LoHa".
/// @throws ValueError that lists the methods
std::string method_type(const std::string& name);

/// Prints which tuners of Hugging Face PEFT there are, and what each can do.
int show_parity(bool json);

/// @param adapter  a folder with one that is for the model; tells whether it is for an encoder
/// alone
std::unique_ptr<graft::models::Model> load_model(const std::filesystem::path& path,
                                                 const std::filesystem::path& adapter = {});
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

/// Data for a language model, by the options that finetune and evaluate have in common.
struct DataOptions {
  std::string data, documents = "file", chat_template;
  graft::Index sequence_length = 256;
  bool no_packing = false, assistant_only = false;
};
/// "file", "blank-line", "line"
graft::text::DocumentUnit document_unit(const std::string& documents);
void add_data_options(CLI::App& command, DataOptions& options);
graft::text::LanguageData load_data(const DataOptions& options,
                                    const graft::text::Tokenizer& tokenizer);
/// "text.txt: 1 document, 1201341 tokens in 4693 sequences"
std::string data_line(const DataOptions& options, const graft::text::LanguageData& data);

/// The folder in FOLDER or NAME=FOLDER.
std::filesystem::path adapter_folder(const std::string& from);
/// Loads adapters given as FOLDER or NAME=FOLDER and activates them all. Warns of those that were
/// trained on a model of another name than that at `base`, or of another architecture.
/// @throws ValueError for one that does not fit, or has a value that is not finite
void load_adapters(graft::AdapterModel& model, const std::vector<std::string>& folders,
                   const std::filesystem::path& base);

/// @throws Exit that names the tensor of a model or of its active adapters that is not finite
[[noreturn]] void fail_not_finite(const graft::models::Model& model,
                                  const graft::AdapterModel& adapters);
/// The same if an output of the model is not finite.
void expect_finite(const graft::Tensor& outputs, const graft::models::Model& model,
                   const graft::AdapterModel& adapters);

}  // namespace cli
