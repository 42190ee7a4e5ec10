#include <algorithm>

#include "labelled_task.hpp"

namespace cli {
namespace {

using graft::concat;
using graft::Index;

/// The class of a text, or of a pair of texts; or a number that belongs to it.
class TextTask final : public LabelledTask {
 public:
  TextTask(const TaskOptions& options, bool regression)
      : LabelledTask(options), regression_(regression), tokenizer_(load_tokenizer(options.model)) {
    auto data = read(o_.data.data);
    labels_.names = data.label_names;
    const auto same = [&](const auto& row) { return row.target == data.rows.front().target; };
    if (regression && std::all_of(data.rows.begin(), data.rows.end(), same))
      throw graft::ValueError(
          concat(o_.data.data, ": all ", data.rows.size(), " rows have the target ",
                 format_number(data.rows.front().target, "%g"), "; regression needs at least two"));
    auto opened = load_classifier(o_.model, regression ? 1 : std::ssize(labels_.names), o_.seed);
    labels_.sequence_length = std::min(o_.data.sequence_length, opened.max_tokens);
    expect_tokenizer_of(*opened.model, tokenizer_, o_.model);
    take(std::move(opened));
    take_rows(encode(data, o_.data.data),
              [&](const std::string& path) { return encode(read(path), path); });
  }

 private:
  const char* task_type() const override { return "SEQ_CLS"; }
  Score score(const Part& part, const graft::Tensor& outputs) const override {
    if (!regression_) return class_score(part, outputs);
    std::vector<float> targets;
    for (const auto& row : part.truth) targets.push_back(row.target);
    const auto s = graft::regression_score(targets, {outputs.data(), targets.size()});
    Score score;
    score.text = concat("\n", part.name, ": mean squared error ",
                        format_number(s.mean_squared_error, "%.4f"), ", mean absolute error ",
                        format_number(s.mean_absolute_error, "%.4f"), ", correlation ",
                        format_number(s.pearson, "%.4f"), " (", s.count, " rows)\n");
    score.json = {{"rows", s.count},
                  {"mean_squared_error", s.mean_squared_error},
                  {"mean_absolute_error", s.mean_absolute_error},
                  {"pearson", s.pearson}};
    score.results = {
        {concat("mean squared error, ", part.name), format_number(s.mean_squared_error, "%.4f")},
        {concat("correlation, ", part.name), format_number(s.pearson, "%.4f")}};
    return score;
  }

  graft::text::LabelledData read(const std::string& path) const {
    return load_labelled(path, o_.labelled, labels_.names, regression_);
  }
  Part encode(const graft::text::LabelledData& data, const std::string& path) {
    Part part;
    Index cut = 0, tokens = 0;
    auto examples = graft::text::encode_labelled(data, tokenizer_, labels_.sequence_length, &cut);
    expect_whole(cut, path);
    for (const auto& example : examples) {
      part.truth.push_back({{example.label}, example.target});
      tokens += example.length();
    }
    say_rows(path, std::ssize(examples),
             concat(", ", tokens, " tokens",
                    cut > 0 ? concat(", ", cut, " cut to ", labels_.sequence_length) : ""));
    part.rows = graft::text_dataset<float>(std::move(examples), tokenizer_.pad_id());
    return part;
  }

  bool regression_;
  graft::text::Tokenizer tokenizer_;
};

}  // namespace

std::unique_ptr<Task> classification_task(const TaskOptions& options) {
  return std::make_unique<TextTask>(options, false);
}
std::unique_ptr<Task> regression_task(const TaskOptions& options) {
  return std::make_unique<TextTask>(options, true);
}

}  // namespace cli
