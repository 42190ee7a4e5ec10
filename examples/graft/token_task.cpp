#include "token_task.hpp"

#include "graft/text/sampling.hpp"

namespace cli {

using graft::concat;
using graft::io::Json;

void TokenTask::take(const std::string& model, const std::string& data, const graft::Dataset& all) {
  const auto split = graft::text::split_held_out(all.rows, o_.held_out, o_.seed);
  lines_ = {concat("model      ", model),
            concat("data       ", data, ", ", split.held_out.size(), " held out")};
  rows_ = graft::subset(all, split.train);
  held_out_ = graft::subset(all, split.held_out);
}

std::string TokenTask::quality(const graft::Evaluation& e) const {
  return concat("held-out perplexity ", format_number(e.perplexity, "%.3f"), ", token accuracy ",
                percent(e.accuracy));
}

std::string TokenTask::look_before(const Stop& stop) {
  before_ = sample_if_wanted(stop);
  return wants_sample() ? concat("sample     ", o_.sample_prompt, before_) : "";
}

void TokenTask::look_after(graft::AdapterModel& adapters, const Stop& stop) {
  after_ = sample_if_wanted(stop);
  if (o_.check_merge) merge_check_.run(model(), adapters, held_out_, 1);
}

void TokenTask::add_results(Json& result, const graft::TrainHistory& history) const {
  if (!history.evaluations.empty()) {
    const auto& first = history.evaluations.front().result;
    const auto& last = history.evaluations.back().result;
    result["perplexity_before"] = first.perplexity;
    result["perplexity_after"] = last.perplexity;
    result["accuracy_before"] = first.accuracy;
    result["accuracy_after"] = last.accuracy;
    result["held_out"] = {
        {"loss", last.loss}, {"perplexity", last.perplexity}, {"accuracy", last.accuracy}};
  }
  merge_check_.add_to(result);
  if (!wants_sample()) return;
  result["sample_before"] = before_;
  result["sample_after"] = after_;
}

std::string TokenTask::result_text(const graft::TrainHistory& history) const {
  std::string text;
  if (!history.evaluations.empty()) {
    const auto& first = history.evaluations.front().result;
    const auto& last = history.evaluations.back().result;
    text +=
        concat("\nheld-out perplexity  ", format_number(first.perplexity, "%.3f"), " -> ",
               format_number(last.perplexity, "%.3f"), ", token accuracy ",
               format_number(100 * first.accuracy, "%.1f"), " -> ", percent(last.accuracy), "\n");
  }
  if (wants_sample())
    text += concat("\nsample before:\n", o_.sample_prompt, before_, "\n\nsample after:\n",
                   o_.sample_prompt, after_, "\n\n");
  return text;
}

void TokenTask::add_results(Report& report, const graft::TrainHistory& history) const {
  if (!history.evaluations.empty()) {
    const auto& first = history.evaluations.front().result;
    const auto& last = history.evaluations.back().result;
    report.results.emplace_back("held-out perplexity",
                                concat(format_number(first.perplexity, "%.3f"), " → ",
                                       format_number(last.perplexity, "%.3f")));
    report.results.emplace_back("token accuracy",
                                concat(percent(first.accuracy), " → ", percent(last.accuracy)));
  }
  if (wants_sample())
    report.samples = {{"Sample before", o_.sample_prompt + before_},
                      {"Sample after", o_.sample_prompt + after_}};
}

}  // namespace cli
