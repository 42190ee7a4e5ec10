#pragma once

#include <string>
#include <vector>

#include "graft/text/tokenizer.hpp"
#include "merge_check.hpp"
#include "task.hpp"

namespace cli {

/// A model that learns to predict tokens, judged by perplexity, with a sample from --sample-prompt
/// before and after. A kind of task opens the model and its data in its constructor.
class TokenTask : public Task {
 public:
  std::vector<std::string> lines() const override { return lines_; }
  const graft::Dataset& rows() const override { return rows_; }
  const graft::Dataset& held_out() const override { return held_out_; }
  std::string quality(const graft::Evaluation& e) const override;
  std::string look_before(const Stop& stop) override;
  void look_after(graft::AdapterModel& adapters, const Stop& stop) override;
  void keep(graft::io::Json& note) const override { note["sample"] = before_; }
  void restore(const graft::io::JsonView& note) override { before_ = note.string_or("sample", ""); }
  void add_results(graft::io::Json& result, const graft::TrainHistory& history) const override;
  std::string result_text(const graft::TrainHistory& history) const override;
  void add_results(Report& report, const graft::TrainHistory& history) const override;

 protected:
  explicit TokenTask(const TaskOptions& options)
      : o_(options), tokenizer_(load_tokenizer(options.model)) {}
  TokenTask(const TokenTask&) = delete;
  TokenTask& operator=(const TokenTask&) = delete;

  /// Takes what is said of model and data, and the rows, of which some are held out.
  void take(const std::string& model, const std::string& data, const graft::Dataset& all);
  /// Says more about model or data.
  void say_more(const std::string& line) { lines_.push_back(line); }
  /// What the model makes of --sample-prompt, to be read behind it.
  virtual std::string sample(const Stop& stop) = 0;

  TaskOptions o_;
  graft::text::Tokenizer tokenizer_;

 private:
  bool wants_sample() const { return !o_.sample_prompt.empty(); }
  std::string sample_if_wanted(const Stop& stop) { return wants_sample() ? sample(stop) : ""; }

  std::vector<std::string> lines_;
  graft::Dataset rows_, held_out_;
  std::string before_, after_;
  MergeCheck merge_check_;
};

}  // namespace cli
