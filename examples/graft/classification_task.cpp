#include <algorithm>
#include <cmath>

#include "graft/io/atomic_file.hpp"
#include "graft/text/sampling.hpp"
#include "graft/train/evaluate.hpp"
#include "labels.hpp"
#include "task.hpp"

namespace cli {
namespace {

using graft::concat;
using graft::ConfusionMatrix;
using graft::Index;
using graft::io::Json;

/// Rows of one file and how they are called.
struct Part {
  std::string name;
  std::vector<std::int64_t> labels;
  graft::Dataset rows;
  std::optional<ConfusionMatrix> result;
};

/// The class of a text, or of a pair of texts.
class ClassificationTask final : public Task {
 public:
  explicit ClassificationTask(const TaskOptions& options)
      : o_(options), tokenizer_(load_tokenizer(options.model)) {
    if (!o_.sample_prompt.empty())
      throw graft::ValueError("--sample-prompt: only for language models");
    auto data = load_labelled(o_.data.data, o_.labelled, {});
    labels_ = {data.label_names, o_.labelled, 0};

    auto opened = load_classifier(o_.model, std::ssize(labels_.names), o_.seed);
    model_ = std::move(opened.model);
    expect_tokenizer_of(*model_, tokenizer_, o_.model);
    saved_modules_ = opened.head;
    labels_.sequence_length = std::min(o_.data.sequence_length, opened.max_tokens);

    lines_.push_back("model      " +
                     model_line(o_.model, model_->info(), describe_model(o_.model)));
    Part all = encode("all", data, o_.data.data);
    if (o_.labelled.held_out_data.empty()) {
      const auto split = graft::text::split_held_out(all.rows.rows, o_.held_out, o_.seed);
      rows_ = graft::subset(all.rows, split.train);
      add_part({"held out",
                picked(all.labels, split.held_out),
                graft::subset(all.rows, split.held_out),
                {}});
    } else {
      rows_ = all.rows;
      add_part(read("held out", o_.labelled.held_out_data));
    }
    held_out_ = parts_.empty() ? graft::Dataset{} : parts_.front().rows;
    if (!o_.labelled.test_data.empty()) add_part(read("test", o_.labelled.test_data));
    std::string counts;
    for (std::size_t c = 0; c < labels_.names.size(); ++c)
      counts += concat(c == 0 ? "" : ", ", labels_.names[c], " ",
                       std::count(all.labels.begin(), all.labels.end(), static_cast<Index>(c)));
    lines_.push_back(concat("classes    ", labels_.names.size(), ": ", counts));
    if (!opened.drawn.empty()) {
      std::string names;
      for (const auto& name : opened.drawn) names += (names.empty() ? "" : ", ") + name;
      lines_.push_back(concat("head       begins at random (not in the model's file): ", names));
    }
  }

  graft::models::Model& model() override { return *model_; }
  std::vector<std::string> lines() const override { return lines_; }
  const graft::Dataset& rows() const override { return rows_; }
  const graft::Dataset& held_out() const override { return held_out_; }
  void complete(graft::ConfigValue::Map& config) const override {
    config["task_type"] = "SEQ_CLS";
    const auto* type = config["peft_type"].get_if<std::string>();
    const bool full = type != nullptr && *type == "FULL";
    // Full fine-tuning of everything has the head among the rest; of some modules it takes the head
    // to them.
    if (full && !config.contains("target_modules")) return;
    const bool listed =
        full && config["target_modules"].get_if<graft::ConfigValue::List>() != nullptr;
    auto& field = config[listed ? "target_modules" : "modules_to_save"];
    graft::ConfigValue::List list;
    if (const auto* given = field.get_if<graft::ConfigValue::List>()) list = *given;
    for (const auto& name : saved_modules_) {
      const graft::ConfigValue value(name);
      if (std::find(list.begin(), list.end(), value) == list.end()) list.push_back(value);
    }
    field = list;
  }

  std::string quality(const graft::Evaluation& e) const override {
    return concat("held-out loss ", format_number(e.loss, "%.4f"), ", accuracy ",
                  percent(e.accuracy));
  }
  std::string look_before(const Stop&) override { return ""; }
  void look_after(graft::AdapterModel& adapters, const Stop&) override {
    for (auto& part : parts_) {
      const auto logits = graft::predict(*model_, part.rows, o_.batch_size);
      part.result = graft::confusion(*logits, std::span<const std::int64_t>(part.labels));
      if (o_.check_merge && &part == &parts_.front()) check_merge(adapters, *logits);
    }
  }
  void keep(Json&) const override {}
  void restore(const graft::io::JsonView&) override {}

  void save(const std::filesystem::path& folder) const override { save_labels(folder, labels_); }
  void add_results(Json& result, const graft::TrainHistory& history) const override {
    if (!history.evaluations.empty()) {
      result["accuracy_before"] = history.evaluations.front().result.accuracy;
      result["accuracy_after"] = history.evaluations.back().result.accuracy;
    }
    for (const auto& part : parts_)
      if (part.result)
        result[part.name == "test" ? "test" : "held_out"] = confusion_json(*part.result, labels_);
    if (!o_.check_merge) return;
    if (merge_difference_)
      result["merge_max_rel"] = *merge_difference_;
    else
      result["merge_refused"] = merge_refused_;
  }
  std::string result_text(const graft::TrainHistory&) const override {
    std::string text;
    for (const auto& part : parts_)
      if (part.result) text += confusion_text(part.name, *part.result, labels_);
    return text;
  }
  void add_results(Report& report, const graft::TrainHistory& history) const override {
    for (const auto& part : parts_) {
      if (!part.result) continue;
      const bool first = &part == &parts_.front() && !history.evaluations.empty();
      const double before = first ? history.evaluations.front().result.accuracy : 0;
      report.results.emplace_back(
          concat("accuracy, ", part.name),
          concat(first ? percent(before) + " → " : "", percent(part.result->accuracy())));
      report.results.emplace_back(concat("mean F1, ", part.name),
                                  format_number(part.result->macro_f1(), "%.4f"));
      report.tables.push_back(confusion_table(part.name, *part.result, labels_));
    }
  }

 private:
  static std::vector<std::int64_t> picked(const std::vector<std::int64_t>& labels,
                                          const std::vector<Index>& rows) {
    std::vector<std::int64_t> result;
    for (const Index row : rows) result.push_back(labels[static_cast<std::size_t>(row)]);
    return result;
  }
  void add_part(Part part) {
    if (part.rows.rows > 0) parts_.push_back(std::move(part));
  }
  Part read(const std::string& name, const std::string& path) {
    return encode(name, load_labelled(path, o_.labelled, labels_.names), path);
  }
  Part encode(const std::string& name, const graft::text::LabelledData& data,
              const std::string& path) {
    Part part;
    part.name = name;
    Index cut = 0, tokens = 0;
    auto examples = graft::text::encode_labelled(data, tokenizer_, labels_.sequence_length, &cut);
    if (cut > 0 && labels_.sequence_length < o_.data.sequence_length)
      throw graft::ValueError(
          concat("--sequence-length: ", o_.data.sequence_length, ", but the model has ",
                 labels_.sequence_length, " positions, and ", cut, " rows of ", path,
                 " have more tokens; --sequence-length ", labels_.sequence_length, " cuts them"));
    for (const auto& example : examples) {
      part.labels.push_back(example.label);
      tokens += example.length();
    }
    lines_.push_back(concat("data       ", last_name(path), ": ", examples.size(), " rows, ",
                            tokens, " tokens",
                            cut > 0 ? concat(", ", cut, " cut to ", labels_.sequence_length) : "",
                            name == "all" ? "" : concat(" (", name, ")")));
    part.rows = graft::text_dataset<float>(std::move(examples), tokenizer_.pad_id());
    return part;
  }

  /// Largest difference that merging makes in the logits, over their largest magnitude.
  void check_merge(graft::AdapterModel& adapters, const graft::Tensor& logits) {
    try {
      adapters.merge({.dequantize = true});
    } catch (const graft::ValueError& error) {
      merge_refused_ = error.what();
      return;
    }
    const auto merged = graft::predict(*model_, parts_.front().rows, o_.batch_size);
    adapters.unmerge();
    double difference = 0, largest = 0;
    for (Index i = 0; i < logits.size(); ++i) {
      largest = std::max(largest, std::abs(static_cast<double>(logits[i])));
      difference = std::max(difference, std::abs(static_cast<double>(logits[i]) - (*merged)[i]));
    }
    merge_difference_ = difference / std::max(largest, 1e-30);
  }

  TaskOptions o_;
  graft::text::Tokenizer tokenizer_;
  std::unique_ptr<graft::models::Model> model_;
  Labels labels_;
  std::vector<std::string> saved_modules_, lines_;
  graft::Dataset rows_, held_out_;
  std::vector<Part> parts_;
  std::optional<double> merge_difference_;
  std::string merge_refused_;
};

}  // namespace

std::unique_ptr<Task> classification_task(const TaskOptions& options) {
  return std::make_unique<ClassificationTask>(options);
}

}  // namespace cli
