#include "labels.hpp"

#include <algorithm>

#include "graft/io/atomic_file.hpp"
#include "session.hpp"

namespace cli {

namespace fs = std::filesystem;
using graft::concat;
using graft::ConfusionMatrix;
using graft::Index;
using graft::io::Json;

namespace {

constexpr const char* kFile = "labels.json";

std::string padded(const std::string& text, std::size_t width, bool left) {
  const auto characters =
      static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
        return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U;
      }));
  const std::string space(characters < width ? width - characters : 0, ' ');
  return left ? text + space : space + text;
}

/// The matrix with names in front and above, and the measures of each class.
std::vector<std::vector<std::string>> cells(const ConfusionMatrix& m, const Labels& labels) {
  std::vector<std::vector<std::string>> rows{{"true \\ predicted"}};
  for (const auto& name : labels.names) rows[0].push_back(name);
  for (const char* measure : {"precision", "recall", "F1"}) rows[0].push_back(measure);
  for (Index t = 0; t < m.classes(); ++t) {
    rows.push_back({labels.names[static_cast<std::size_t>(t)]});
    for (Index p = 0; p < m.classes(); ++p) rows.back().push_back(std::to_string(m.count(t, p)));
    for (const double value : {m.precision(t), m.recall(t), m.f1(t)})
      rows.back().push_back(format_number(value, "%.4f"));
  }
  return rows;
}

}  // namespace

void save_labels(const fs::path& folder, const Labels& labels) {
  const Json json{{"task", labels.task},
                  {"labels", labels.names},
                  {"text_column", labels.columns.text_column},
                  {"pair_column", labels.columns.pair_column},
                  {"label_column", labels.columns.label_column},
                  {"sequence_length", labels.sequence_length}};
  graft::io::write_file_atomically(folder / kFile, graft::io::json_text(json, 2) + "\n");
}

std::optional<Labels> load_labels(const fs::path& folder) {
  if (!fs::exists(folder / kFile)) return std::nullopt;
  const auto document = graft::io::read_json(folder / kFile);
  const graft::io::JsonView json(document, (folder / kFile).string());
  Labels labels;
  labels.task = json.string_or("task", labels.task);
  labels.names = json.at("labels").strings();
  if (labels.names.size() < 2 && labels.task != "regression" && labels.task != kMaskedLanguage)
    json.at("labels").fail("fewer than two classes");
  labels.columns.text_column = json.string_or("text_column", "text");
  labels.columns.pair_column = json.string_or("pair_column", "");
  labels.columns.label_column = json.string_or("label_column", "label");
  labels.sequence_length = static_cast<Index>(json.integer_or("sequence_length", 256, 0, 1 << 20));
  return labels;
}

std::optional<Labels> labels_of_adapters(const std::vector<std::string>& adapters) {
  std::optional<Labels> labels;
  for (const auto& from : adapters)
    if (auto found = load_labels(adapter_folder(from))) labels = std::move(found);
  return labels;
}

namespace {

constexpr std::pair<std::string_view, std::string_view> kHeads[] = {
    {"classification", "ForSequenceClassification"},
    {"regression", "ForSequenceClassification"},
    {"token-classification", "ForTokenClassification"},
    {kMaskedLanguage, "ForMaskedLM"},
    {"image-classification", "ForImageClassification"}};

}  // namespace

std::string drawn_line(const Classifier& opened) {
  std::string names;
  for (const auto& name : opened.drawn) names += (names.empty() ? "" : ", ") + name;
  return names.empty() ? ""
                       : concat("head       begins at random (not in the model's file): ", names);
}

Classifier load_with_head(const fs::path& path, const Labels& labels, std::uint64_t seed) {
  const Index classes = std::max<Index>(1, std::ssize(labels.names));
  if (labels.task == "token-classification") return load_tagger(path, classes, seed);
  if (labels.task == kMaskedLanguage) return load_masked(path, seed);
  if (labels.task == "image-classification") return load_image_classifier(path, classes, seed);
  return load_classifier(path, classes, seed);
}

Classifier load_for(const fs::path& path, const std::optional<Labels>& labels,
                    const fs::path& adapter) {
  if (labels) return load_with_head(path, *labels, 0);
  Classifier opened;
  opened.model = load_model(path, adapter);
  return opened;
}

std::string task_of_model(const graft::io::JsonView& config, const std::string& otherwise) {
  for (const auto& name : config.strings_or("architectures", {}))
    for (const auto& [task, suffix] : kHeads)
      if (name.ends_with(suffix)) return std::string(task);
  return otherwise;
}

std::string architecture_of_task(const graft::models::Architecture& model,
                                 const std::string& task) {
  for (const auto& [name, suffix] : kHeads)
    if (name == task) return std::string(model.name) + std::string(suffix);
  throw graft::ValueError("no architecture for the task " + task);
}

graft::text::LabelledData load_labelled(const std::string& path, const LabelledOptions& options,
                                        const std::vector<std::string>& names, bool regression) {
  if (!fs::exists(path)) throw graft::IoError(path + ": no such data file");
  graft::text::LabelledDataOptions columns;
  columns.text_column = options.text_column;
  columns.pair_column = options.pair_column;
  columns.label_column = options.label_column;
  columns.header = !options.no_header;
  columns.label_names = names;
  columns.regression = regression;
  return graft::text::load_labelled_data(path, columns);
}

LabelledOptions word_columns(LabelledOptions columns) {
  const LabelledOptions texts;
  if (columns.text_column == texts.text_column) columns.text_column = "tokens";
  if (columns.label_column == texts.label_column) columns.label_column = "tags";
  return columns;
}

Json confusion_json(const ConfusionMatrix& m, const Labels& labels) {
  Json counts = Json::array(), f1 = Json::object();
  for (Index t = 0; t < m.classes(); ++t) {
    Json row = Json::array();
    for (Index p = 0; p < m.classes(); ++p) row.push_back(m.count(t, p));
    counts.push_back(row);
    f1[labels.names[static_cast<std::size_t>(t)]] = m.f1(t);
  }
  return {{"rows", m.total()}, {"accuracy", m.accuracy()}, {"macro_f1", m.macro_f1()},
          {"f1", f1},          {"labels", labels.names},   {"confusion", counts}};
}

std::string confusion_text(const std::string& name, const ConfusionMatrix& m,
                           const Labels& labels) {
  std::string text =
      concat("\n", name, ": accuracy ", format_number(100 * m.accuracy(), "%.2f"), " %, mean F1 ",
             format_number(m.macro_f1(), "%.4f"), " (", m.total(), " rows)\n");
  const auto rows = cells(m, labels);
  for (const auto& row : rows) {
    for (std::size_t c = 0; c < row.size(); ++c) {
      std::size_t width = 6;
      for (const auto& other : rows) width = std::max(width, other[c].size());
      text += "  " + padded(row[c], width, c == 0);
    }
    text += "\n";
  }
  return text;
}

ReportTable confusion_table(const std::string& name, const ConfusionMatrix& m,
                            const Labels& labels) {
  return {concat("Confusion matrix, ", name), cells(m, labels)};
}

}  // namespace cli
