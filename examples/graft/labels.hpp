#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "graft/models/architecture.hpp"
#include "graft/models/pooling.hpp"
#include "graft/train/metrics.hpp"
#include "report.hpp"
#include "texts.hpp"

/// Classes, and models that tell them apart.
namespace cli {

/// The task of finetune that hides tokens from a model; its head has no classes of its own.
inline constexpr const char* kMaskedLanguage = "masked-language";

/// What a head was trained for: labels.json beside its adapter.
struct Labels {
  std::string task = "classification";  ///< see finetune --task
  std::vector<std::string> names;       ///< classes; none for regression and masked language
  LabelledOptions columns;
  graft::Index sequence_length = 0;
};
void save_labels(const std::filesystem::path& folder, const Labels& labels);
/// Nothing if the folder has no labels.json.
std::optional<Labels> load_labels(const std::filesystem::path& folder);
/// Those of the last of some adapters that has any. @param adapters  FOLDER or NAME=FOLDER
std::optional<Labels> labels_of_adapters(const std::vector<std::string>& adapters);

/// A model with a head that is trained.
struct Classifier {
  std::unique_ptr<graft::models::Model> model;
  std::vector<std::string> head;   ///< modules of the head that are trained whole
  std::vector<std::string> drawn;  ///< those that the file does not have
  graft::Index max_tokens = 0;
};
/// An encoder, a decoder whose last token decides, or T5.
/// @throws ValueError for another model
Classifier load_classifier(const std::filesystem::path& path, graft::Index classes,
                           std::uint64_t seed);
/// The same with an output a token, of an encoder or T5's.
Classifier load_tagger(const std::filesystem::path& path, graft::Index classes, std::uint64_t seed);
/// An encoder that guesses hidden tokens.
Classifier load_masked(const std::filesystem::path& path, std::uint64_t seed);
/// A vision transformer.
Classifier load_image_classifier(const std::filesystem::path& path, graft::Index classes,
                                 std::uint64_t seed);

/// A line about the layers of a head that were drawn; empty if none were.
std::string drawn_line(const Classifier& opened);

/// The one of these that a task needs.
Classifier load_with_head(const std::filesystem::path& path, const Labels& labels,
                          std::uint64_t seed);
/// The same where there are labels, else `load_model` with the folder of the adapter.
Classifier load_for(const std::filesystem::path& path, const std::optional<Labels>& labels,
                    const std::filesystem::path& adapter);
/// What config.json says the head of a model is for: BertForTokenClassification is for
/// "token-classification". `otherwise`: it has no head, or one of another kind.
std::string task_of_model(const graft::io::JsonView& config, const std::string& otherwise);
/// bert, "regression" -> "BertForSequenceClassification"
std::string architecture_of_task(const graft::models::Architecture& model, const std::string& task);

/// An encoder below its head.
struct Encoder {
  graft::BasicSiteTable<float>& sites;
  graft::Index max_tokens;
  std::shared_ptr<const graft::models::Model> model;
  std::function<graft::Tensor(const graft::models::Batch&, graft::models::Pooling, bool normalize)>
      embed;
};
/// @param labels  what the head of its adapters was trained for; nothing: there is none
Encoder load_encoder(const std::filesystem::path& path, const std::optional<Labels>& labels);

graft::text::LabelledData load_labelled(const std::string& path, const LabelledOptions& options,
                                        const std::vector<std::string>& names,
                                        bool regression = false);

/// The same columns, by the names that lists of words and tags have where none are given.
LabelledOptions word_columns(LabelledOptions columns);

graft::io::Json confusion_json(const graft::ConfusionMatrix& matrix, const Labels& labels);
std::string confusion_text(const std::string& name, const graft::ConfusionMatrix& matrix,
                           const Labels& labels);
ReportTable confusion_table(const std::string& name, const graft::ConfusionMatrix& matrix,
                            const Labels& labels);

}  // namespace cli
