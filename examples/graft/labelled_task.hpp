#pragma once

#include <optional>
#include <utility>

#include "labels.hpp"
#include "merge_check.hpp"
#include "task.hpp"

namespace cli {

/// What a kind of labelled task says about predictions.
struct Score {
  std::string text;
  graft::io::Json json;
  std::vector<std::pair<std::string, std::string>> results;  ///< lines of the report
  std::optional<ReportTable> table;
};

/// A model with a head that learns what people wrote beside texts or images. A kind of task opens
/// the model and its data in its constructor, and says how good predictions are.
class LabelledTask : public Task {
 public:
  graft::models::Model& model() override { return *model_; }
  std::vector<std::string> lines() const override { return lines_; }
  const graft::Dataset& rows() const override { return rows_; }
  const graft::Dataset& held_out() const override { return held_out_; }
  void complete(graft::ConfigValue::Map& config) const override;
  std::string quality(const graft::Evaluation& e) const override;
  std::string look_before(const Stop&) override { return ""; }
  void look_after(graft::AdapterModel& adapters, const Stop& stop) override;
  void keep(graft::io::Json&) const override {}
  void restore(const graft::io::JsonView&) override {}
  void save(const std::filesystem::path& folder) const override { save_labels(folder, labels_); }
  void add_results(graft::io::Json& result, const graft::TrainHistory& history) const override;
  std::string result_text(const graft::TrainHistory& history) const override;
  void add_results(Report& report, const graft::TrainHistory& history) const override;

 protected:
  /// Truth about one row: a class, a number, or the tags of its words.
  struct Truth {
    std::vector<std::int64_t> labels;
    float target = 0;
  };
  /// Rows of one file.
  struct Part {
    std::string name;  ///< "held out" or "test"
    std::vector<Truth> truth;
    graft::Dataset rows;
    std::optional<Score> score;
  };

  explicit LabelledTask(const TaskOptions& options);
  LabelledTask(const LabelledTask&) = delete;
  LabelledTask& operator=(const LabelledTask&) = delete;

  /// Takes a model and says what was drawn of its head.
  void take(Classifier&& opened);
  /// Takes the rows of --data, and reads those of the other files.
  void take_rows(Part all, const std::function<Part(const std::string& path)>& read);
  /// "data       train.csv: 100 rows<rest>"
  void say_rows(const std::string& path, graft::Index rows, const std::string& rest);
  /// Lengths that a model has positions for: cuts beyond the asked length are an error.
  void expect_whole(graft::Index cut, const std::string& path) const;

  virtual const char* task_type() const = 0;
  /// @param outputs  of the head, a row a prediction
  virtual Score score(const Part& part, const graft::Tensor& outputs) const = 0;
  /// Accuracy, F1, confusion matrix of all labels of a part.
  Score class_score(const Part& part, const graft::Tensor& outputs) const;
  static std::vector<std::int64_t> all_labels(const Part& part);

  TaskOptions o_;
  std::unique_ptr<graft::models::Model> model_;
  Labels labels_;

 private:
  std::vector<std::string> saved_modules_, lines_, late_lines_;
  graft::Dataset rows_, held_out_;
  std::vector<Part> parts_;
  MergeCheck merge_check_;
};

}  // namespace cli
