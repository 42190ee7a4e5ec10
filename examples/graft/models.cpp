#include <algorithm>
#include <optional>

#include "files.hpp"
#include "graft/io/safetensors.hpp"
#include "graft/models/load.hpp"
#include "labels.hpp"
#include "session.hpp"

namespace cli {

using graft::concat;
using graft::Index;

namespace {

void expect_there(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path))
    throw graft::IoError(path.string() + ": no such file or folder");
}

/// True if an adapter was trained on an encoder below its head: its names have no "bert." in front.
bool is_of_bare_encoder(const std::filesystem::path& path, const std::filesystem::path& adapter) {
  const auto file = adapter / "adapter_model.safetensors";
  if (!std::filesystem::exists(path / "config.json") || !std::filesystem::exists(file))
    return false;
  const graft::models::detail::FolderConfig config(path);
  if (config.architecture == nullptr || config.architecture->family != graft::models::Family::bert)
    return false;
  const auto tensors = graft::io::SafetensorsFile::open(file);
  for (const auto& view : tensors.tensors())
    for (const char* part : {"encoder.", "embeddings.", "transformer."})
      if (view.name.starts_with(concat("base_model.model.", part))) return true;
  return false;
}

}  // namespace

std::unique_ptr<graft::models::Model> load_model(const std::filesystem::path& path,
                                                 const std::filesystem::path& adapter) {
  expect_there(path);
  if (is_of_bare_encoder(path, adapter))
    return graft::models::load_encoder<float>(path, {.task = graft::models::Task::embedding});
  return graft::models::load<float>(path);
}

namespace {

/// A classifier of texts or tokens, or a model that guesses hidden tokens. GGUF files have
/// decoders, which classify texts.
Classifier load_text_head(const std::filesystem::path& path,
                          const graft::models::HeadConfig& head) {
  using graft::models::Family;
  expect_there(path);
  const bool tokens = head.task == graft::models::Task::token_classification,
             masked = head.task == graft::models::Task::masked_language;
  const auto fits = [&](const graft::models::Architecture& one) {
    return one.family == Family::bert || (one.family == Family::t5 && !masked) ||
           (one.is_decoder() && !tokens && !masked);
  };
  auto family = Family::llama;
  if (std::filesystem::is_directory(path)) {
    const graft::models::detail::FolderConfig config(path);
    family =
        graft::models::detail::expect_architecture(config.architecture, config.type, path, fits)
            .family;
  } else if (tokens || masked) {
    throw graft::ValueError(concat(path.string(), ": a GGUF file is not supported for this task; ",
                                   graft::models::supported_types(fits), ", in a folder"));
  }
  Classifier result;
  result.max_tokens = Index{1} << 20;
  if (family == Family::bert) {
    auto model = graft::models::load_encoder<float>(path, head, &result.drawn);
    if (!masked) result.head = {"classifier"};
    for (const auto& name : result.drawn)
      if (!name.starts_with("classifier")) result.head.push_back(name);
    result.max_tokens = model->max_tokens();
    result.model = std::move(model);
  } else if (family == Family::t5) {
    result.head = {tokens ? "classifier" : "classification_head"};
    result.model = graft::models::load_t5_classifier<float>(path, head, &result.drawn);
  } else {
    auto model = graft::models::load_decoder_classifier<float>(path, head, &result.drawn);
    result.head = {"score"};
    if (model->max_positions > 0) result.max_tokens = model->max_positions;
    result.model = std::move(model);
  }
  return result;
}

}  // namespace

Classifier load_classifier(const std::filesystem::path& path, graft::Index classes,
                           std::uint64_t seed) {
  return load_text_head(path, {.classes = classes, .seed = seed});
}
Classifier load_tagger(const std::filesystem::path& path, graft::Index classes,
                       std::uint64_t seed) {
  return load_text_head(
      path, {.task = graft::models::Task::token_classification, .classes = classes, .seed = seed});
}
Classifier load_masked(const std::filesystem::path& path, std::uint64_t seed) {
  return load_text_head(path, {.task = graft::models::Task::masked_language, .seed = seed});
}
Classifier load_image_classifier(const std::filesystem::path& path, graft::Index classes,
                                 std::uint64_t seed) {
  expect_there(path);
  Classifier result;
  result.head = {"classifier"};
  result.model = graft::models::load_image_classifier<float>(
      path, {.classes = classes, .seed = seed}, &result.drawn);
  return result;
}

Encoder load_encoder(const std::filesystem::path& path, const std::optional<Labels>& labels) {
  using graft::models::Task;
  expect_there(path);
  graft::models::HeadConfig head{.task = Task::embedding};
  if (labels) {
    head.task = labels->task == kMaskedLanguage          ? Task::masked_language
                : labels->task == "token-classification" ? Task::token_classification
                                                         : Task::sequence_classification;
    head.classes = std::max<Index>(1, std::ssize(labels->names));
  }
  auto model = std::shared_ptr(graft::models::load_encoder<float>(path, head));
  return {model->sites(), model->max_tokens(), model,
          [model](const graft::models::Batch& batch, graft::models::Pooling pooling,
                  bool normalize) { return model->embed(batch, pooling, normalize); }};
}

std::string gguf_name(const std::string& architecture, const std::string& name) {
  return graft::models::detail::gguf_name(name, architecture.starts_with("gemma3"));
}

const graft::models::LlamaConfig* llama_config(const graft::models::Model& model) {
  const auto* llama = dynamic_cast<const graft::models::Llama*>(&model);
  return llama == nullptr ? nullptr : &llama->config();
}

}  // namespace cli
