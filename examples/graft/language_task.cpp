#include "graft/train/generate.hpp"
#include "token_task.hpp"

namespace cli {
namespace {

using graft::concat;

/// The next token of texts.
class LanguageTask final : public TokenTask {
 public:
  explicit LanguageTask(const TaskOptions& options)
      : TokenTask(options), model_(load_causal(options.model)) {
    expect_tokenizer_of(*model_, tokenizer_, o_.model);
    auto data = load_data(o_.data, tokenizer_);
    for (const auto& example : data.examples)
      if (model_->max_positions > 0 && example.length() > model_->max_positions)
        throw graft::ValueError(concat("--sequence-length: a row of ", example.length(),
                                       " tokens, and the model has ", model_->max_positions,
                                       " positions"));
    const auto line = data_line(o_.data, data);
    take(model_line(o_.model, model_->info(), describe_model(o_.model)), line,
         graft::text_dataset<float>(std::move(data.examples), tokenizer_.pad_id()));
  }

  graft::models::Model& model() override { return *model_; }
  void complete(graft::ConfigValue::Map& config) const override {
    config["task_type"] = "CAUSAL_LM";
  }
  void save(const std::filesystem::path&) const override {}

 private:
  std::string sample(const Stop& stop) override {
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

  std::unique_ptr<graft::models::CausalModel> model_;
};

}  // namespace

std::unique_ptr<Task> language_task(const TaskOptions& options) {
  return std::make_unique<LanguageTask>(options);
}

}  // namespace cli
