#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "graft/models/pooling.hpp"
#include "graft/train/metrics.hpp"
#include "report.hpp"
#include "texts.hpp"

/// Classes, and models that tell them apart.
namespace cli {

/// What a classifier was trained for: labels.json beside its adapter.
struct Labels {
  std::vector<std::string> names;
  LabelledOptions columns;
  graft::Index sequence_length = 0;
};
void save_labels(const std::filesystem::path& folder, const Labels& labels);
/// Nothing if the folder has no labels.json.
std::optional<Labels> load_labels(const std::filesystem::path& folder);

/// An encoder with a classification head.
struct Classifier {
  std::unique_ptr<graft::models::Model> model;
  std::vector<std::string> head;   ///< modules of the head that are trained whole
  std::vector<std::string> drawn;  ///< those that the file does not have
  graft::Index max_tokens = 0;
};
/// @throws ValueError for a model that is no encoder
Classifier load_classifier(const std::filesystem::path& path, graft::Index classes,
                           std::uint64_t seed);

/// An encoder without a head.
struct Encoder {
  graft::BasicSiteTable<float>& sites;
  graft::Index max_tokens;
  std::shared_ptr<const graft::models::Model> model;
  std::function<graft::Tensor(const graft::models::Batch&, graft::models::Pooling, bool normalize)>
      embed;
};
Encoder load_encoder(const std::filesystem::path& path);

graft::text::LabelledData load_labelled(const std::string& path, const LabelledOptions& options,
                                        const std::vector<std::string>& names);

graft::io::Json confusion_json(const graft::ConfusionMatrix& matrix, const Labels& labels);
std::string confusion_text(const std::string& name, const graft::ConfusionMatrix& matrix,
                           const Labels& labels);
ReportTable confusion_table(const std::string& name, const graft::ConfusionMatrix& matrix,
                            const Labels& labels);

}  // namespace cli
