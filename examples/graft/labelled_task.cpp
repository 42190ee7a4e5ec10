#include "labelled_task.hpp"

#include <algorithm>

#include "graft/text/sampling.hpp"
#include "graft/train/evaluate.hpp"

namespace cli {

using graft::concat;
using graft::Index;
using graft::io::Json;

LabelledTask::LabelledTask(const TaskOptions& options) : o_(options) {
  if (!o_.sample_prompt.empty())
    throw graft::ValueError("--sample-prompt: only for language models");
  labels_.task = o_.name;
  labels_.columns = o_.labelled;
}

void LabelledTask::take(Classifier&& opened) {
  model_ = std::move(opened.model);
  saved_modules_ = opened.head;
  lines_.push_back("model      " + model_line(o_.model, model_->info(), describe_model(o_.model)));
  if (const auto line = drawn_line(opened); !line.empty()) late_lines_.push_back(line);
}

void LabelledTask::take_rows(Part all, const std::function<Part(const std::string& path)>& read) {
  const auto add_part = [&](const char* name, Part part) {
    part.name = name;
    if (part.rows.rows > 0) parts_.push_back(std::move(part));
  };
  if (o_.labelled.held_out_data.empty()) {
    const auto split = graft::text::split_held_out(all.rows.rows, o_.held_out, o_.seed);
    rows_ = graft::subset(all.rows, split.train);
    Part held_out;
    for (const Index row : split.held_out)
      held_out.truth.push_back(all.truth[static_cast<std::size_t>(row)]);
    held_out.rows = graft::subset(all.rows, split.held_out);
    add_part("held out", std::move(held_out));
  } else {
    rows_ = all.rows;
    add_part("held out", read(o_.labelled.held_out_data));
  }
  held_out_ = parts_.empty() ? graft::Dataset{} : parts_.front().rows;
  if (!o_.labelled.test_data.empty()) add_part("test", read(o_.labelled.test_data));
  if (!labels_.names.empty()) {
    const auto labels = all_labels(all);
    std::string counts;
    for (std::size_t c = 0; c < labels_.names.size(); ++c)
      counts += concat(c == 0 ? "" : ", ", labels_.names[c], " ",
                       std::count(labels.begin(), labels.end(), static_cast<Index>(c)));
    lines_.push_back(concat("classes    ", labels_.names.size(), ": ", counts));
  }
  lines_.insert(lines_.end(), late_lines_.begin(), late_lines_.end());
}

void LabelledTask::say_rows(const std::string& path, Index rows, const std::string& rest) {
  lines_.push_back(concat("data       ", last_name(path), ": ", rows, " rows", rest));
}

void LabelledTask::expect_whole(Index cut, const std::string& path) const {
  if (cut > 0 && labels_.sequence_length < o_.data.sequence_length)
    throw graft::ValueError(
        concat("--sequence-length: ", o_.data.sequence_length, ", but the model has ",
               labels_.sequence_length, " positions, and ", cut, " rows of ", path,
               " have more tokens; --sequence-length ", labels_.sequence_length, " cuts them"));
}

void LabelledTask::complete(graft::ConfigValue::Map& config) const {
  if (task_type() != nullptr) config["task_type"] = task_type();
  train_whole(config, saved_modules_);
}

std::string LabelledTask::quality(const graft::Evaluation& e) const {
  const auto loss = concat("held-out loss ", format_number(e.loss, "%.4f"));
  return labels_.names.empty() ? loss : concat(loss, ", accuracy ", percent(e.accuracy));
}

void LabelledTask::look_after(graft::AdapterModel& adapters, const Stop&) {
  for (auto& part : parts_)
    part.score = score(part, *graft::predict(*model_, part.rows, o_.batch_size));
  if (o_.check_merge) merge_check_.run(*model_, adapters, held_out_, o_.batch_size);
}

void LabelledTask::add_results(Json& result, const graft::TrainHistory& history) const {
  if (!history.evaluations.empty() && !labels_.names.empty()) {
    result["accuracy_before"] = history.evaluations.front().result.accuracy;
    result["accuracy_after"] = history.evaluations.back().result.accuracy;
  }
  for (const auto& part : parts_)
    if (part.score) result[part.name == "test" ? "test" : "held_out"] = part.score->json;
  merge_check_.add_to(result);
}

std::string LabelledTask::result_text(const graft::TrainHistory&) const {
  std::string text;
  for (const auto& part : parts_)
    if (part.score) text += part.score->text;
  return text;
}

void LabelledTask::add_results(Report& report, const graft::TrainHistory& history) const {
  if (!history.evaluations.empty()) {
    const auto& first = history.evaluations.front().result;
    const auto& last = history.evaluations.back().result;
    report.results.emplace_back("held-out loss", concat(format_number(first.loss, "%.4f"), " → ",
                                                        format_number(last.loss, "%.4f")));
  }
  for (const auto& part : parts_) {
    if (!part.score) continue;
    report.results.insert(report.results.end(), part.score->results.begin(),
                          part.score->results.end());
    if (part.score->table) report.tables.push_back(*part.score->table);
  }
}

std::vector<std::int64_t> LabelledTask::all_labels(const Part& part) {
  std::vector<std::int64_t> labels;
  for (const auto& row : part.truth)
    labels.insert(labels.end(), row.labels.begin(), row.labels.end());
  return labels;
}

Score LabelledTask::class_score(const Part& part, const graft::Tensor& outputs) const {
  const auto labels = all_labels(part);
  const auto matrix = graft::confusion(outputs, std::span<const std::int64_t>(labels));
  Score score;
  score.text = confusion_text(part.name, matrix, labels_);
  score.json = confusion_json(matrix, labels_);
  score.results = {{concat("accuracy, ", part.name), percent(matrix.accuracy())},
                   {concat("mean F1, ", part.name), format_number(matrix.macro_f1(), "%.4f")}};
  score.table = confusion_table(part.name, matrix, labels_);
  return score;
}

}  // namespace cli
