#include "graft/text/sampling.hpp"
#include "graft/train/generate.hpp"
#include "merge_check.hpp"
#include "task.hpp"

namespace cli {
namespace {

using graft::concat;
using graft::io::Json;

/// The next token of texts.
class LanguageTask final : public Task {
 public:
  explicit LanguageTask(const TaskOptions& options)
      : o_(options), model_(load_causal(options.model)), tokenizer_(load_tokenizer(options.model)) {
    expect_tokenizer_of(*model_, tokenizer_, o_.model);
    if (o_.activation_checkpointing) model_->recomputed_blocks = model_->info().layers;
    auto data = load_data(o_.data, tokenizer_);
    for (const auto& example : data.examples)
      if (model_->max_positions > 0 && example.length() > model_->max_positions)
        throw graft::ValueError(concat("--sequence-length: a row of ", example.length(),
                                       " tokens, and the model has ", model_->max_positions,
                                       " positions"));
    const auto split = graft::text::split_held_out(std::ssize(data.examples), o_.held_out, o_.seed);
    lines_ = {
        "model      " + model_line(o_.model, model_->info(), describe_model(o_.model)),
        concat("data       ", data_line(o_.data, data), ", ", split.held_out.size(), " held out")};
    const auto all = graft::text_dataset<float>(std::move(data.examples), tokenizer_.pad_id());
    rows_ = graft::subset(all, split.train);
    held_out_ = graft::subset(all, split.held_out);
  }

  graft::models::Model& model() override { return *model_; }
  std::vector<std::string> lines() const override { return lines_; }
  const graft::Dataset& rows() const override { return rows_; }
  const graft::Dataset& held_out() const override { return held_out_; }
  void complete(graft::ConfigValue::Map& config) const override {
    config["task_type"] = "CAUSAL_LM";
  }

  std::string quality(const graft::Evaluation& e) const override {
    return concat("held-out perplexity ", format_number(e.perplexity, "%.3f"), ", token accuracy ",
                  percent(e.accuracy));
  }
  std::string look_before(const Stop& stop) override {
    before_ = sample(stop);
    return wants_sample() ? concat("sample     ", o_.sample_prompt, before_) : "";
  }
  void look_after(graft::AdapterModel& adapters, const Stop& stop) override {
    after_ = sample(stop);
    if (o_.check_merge) merge_check_.run(*model_, adapters, held_out_, 1);
  }
  void keep(Json& note) const override { note["sample"] = before_; }
  void restore(const graft::io::JsonView& note) override { before_ = note.string_or("sample", ""); }

  void save(const std::filesystem::path&) const override {}
  void add_results(Json& result, const graft::TrainHistory& history) const override {
    if (!history.evaluations.empty()) {
      const auto& first = history.evaluations.front().result;
      const auto& last = history.evaluations.back().result;
      result["perplexity_before"] = first.perplexity;
      result["perplexity_after"] = last.perplexity;
      result["accuracy_before"] = first.accuracy;
      result["accuracy_after"] = last.accuracy;
      result["held_out"] = {{"perplexity", last.perplexity}, {"accuracy", last.accuracy}};
    }
    merge_check_.add_to(result);
    if (!wants_sample()) return;
    result["sample_before"] = before_;
    result["sample_after"] = after_;
  }
  std::string result_text(const graft::TrainHistory& history) const override {
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
  void add_results(Report& report, const graft::TrainHistory& history) const override {
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

 private:
  bool wants_sample() const { return !o_.sample_prompt.empty(); }
  std::string sample(const Stop& stop) const {
    if (!wants_sample()) return "";
    graft::GenerateConfig config;
    config.max_tokens = o_.sample_tokens;
    config.temperature = 0.7;
    config.top_p = 0.95;
    config.seed = o_.seed;
    config.end_ids = tokenizer_.end_ids();
    const auto ids = graft::generate(*model_, tokenizer_.encode(o_.sample_prompt), config,
                                     [&](std::int32_t) { return !stop(); });
    return tokenizer_.decode(ids, true);
  }

  TaskOptions o_;
  std::unique_ptr<graft::models::CausalModel> model_;
  graft::text::Tokenizer tokenizer_;
  std::vector<std::string> lines_;
  graft::Dataset rows_, held_out_;
  std::string before_, after_;
  MergeCheck merge_check_;
};

}  // namespace

std::unique_ptr<Task> language_task(const TaskOptions& options) {
  return std::make_unique<LanguageTask>(options);
}

}  // namespace cli
