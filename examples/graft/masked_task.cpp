#include "graft/train/masked_dataset.hpp"
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
    if (!(o_.mask_rate > 0 && o_.mask_rate < 1))
      throw graft::ValueError(concat("--mask-rate: ", format_number(o_.mask_rate, "%g"),
                                     "; expected a number between 0 and 1"));
    const auto masking =
        graft::text::masking_of(tokenizer_, opened_.model->info().vocabulary, o_.mask_rate);
    if (o_.data.sequence_length > opened_.max_tokens)
      throw graft::ValueError(concat("--sequence-length: ", o_.data.sequence_length,
                                     ", and the model has ", opened_.max_tokens, " positions"));
    auto data = load_data();
    const auto line = concat(data_line(o_.data, data), ", ", percent(o_.mask_rate), " to guess");
    take(model_line(o_.model, opened_.model->info(), describe_model(o_.model)), line,
         graft::masked_dataset<float>(std::move(data.examples), masking, tokenizer_.pad_id(),
                                      o_.seed));
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
  graft::text::LanguageData load_data() const {
    if (!std::filesystem::exists(o_.data.data))
      throw graft::IoError(o_.data.data + ": no such data file");
    graft::text::MaskedDataOptions options;
    options.sequence_length = o_.data.sequence_length;
    options.packing = !o_.data.no_packing;
    options.unit = document_unit(o_.data.documents);
    options.text_column = o_.labelled.text_column;
    options.header = !o_.labelled.no_header;
    return graft::text::load_masked_data(o_.data.data, tokenizer_, options);
  }
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
