#include "labels.hpp"
#include "masks.hpp"
#include "token_task.hpp"

namespace cli {
namespace {

using graft::concat;
using graft::Index;

/// Tokens of texts that are hidden from an encoder.
class MaskedTask final : public TokenTask {
 public:
  explicit MaskedTask(const TaskOptions& options)
      : TokenTask(options), opened_(load_masked(options.model, options.seed)) {
    expect_tokenizer_of(*opened_.model, tokenizer_, o_.model);
    const auto texts =
        masked_rows(opened_, tokenizer_, o_.data, o_.labelled, o_.mask_rate, o_.seed);
    take(model_line(o_.model, opened_.model->info(), describe_model(o_.model)), texts.line,
         texts.rows);
    if (const auto drawn = drawn_line(opened_); !drawn.empty()) say_more(drawn);
  }

  graft::models::Model& model() override { return *opened_.model; }
  /// PEFT has no task type for masked language models.
  void complete(graft::ConfigValue::Map& config) const override {
    train_whole(config, opened_.head);
  }
  std::string quality(const graft::Evaluation& e) const override {
    return concat("held-out loss ", format_number(e.loss, "%.4f"), ", perplexity ",
                  format_number(e.perplexity, "%.3f"), ", token accuracy ", percent(e.accuracy));
  }
  void save(const std::filesystem::path& folder) const override {
    Labels labels;
    labels.task = kMaskedLanguage;
    labels.columns = o_.labelled;
    labels.sequence_length = opened_.max_tokens;
    save_labels(folder, labels);
  }

 private:
  std::string sample(const Stop&) override {
    constexpr Index kGuesses = 5;
    const auto guesses = guess_masks(*opened_.model, tokenizer_, {o_.sample_prompt}, kGuesses,
                                     opened_.max_tokens, 1);
    std::string text;
    for (const auto& mask : guesses.front()) {
      text += text.empty() ? ": " : "; ";
      for (std::size_t i = 0; i < mask.size(); ++i)
        text += concat(i == 0 ? "" : ", ", mask[i].token, " ", percent(mask[i].probability));
    }
    return text;
  }

  Classifier opened_;
};

}  // namespace

std::unique_ptr<Task> masked_task(const TaskOptions& options) {
  return std::make_unique<MaskedTask>(options);
}

}  // namespace cli
