#include <algorithm>

#include "graft/text/tagged.hpp"
#include "graft/train/entity_score.hpp"
#include "graft/train/evaluate.hpp"
#include "labelled_task.hpp"

namespace cli {
namespace {

using graft::concat;
using graft::Index;

/// A tag for every word of a text.
class TaggingTask final : public LabelledTask {
 public:
  explicit TaggingTask(const TaskOptions& options)
      : LabelledTask(options), tokenizer_(load_tokenizer(options.model)) {
    labels_.columns = word_columns(labels_.columns);
    auto data = read(o_.data.data);
    labels_.names = data.tag_names;
    auto opened = load_tagger(o_.model, std::ssize(labels_.names), o_.seed);
    labels_.sequence_length = std::min(o_.data.sequence_length, opened.max_tokens);
    expect_tokenizer_of(*opened.model, tokenizer_, o_.model);
    take(std::move(opened));
    take_rows(encode(data, o_.data.data),
              [&](const std::string& path) { return encode(read(path), path); });
  }

 private:
  const char* task_type() const override { return "TOKEN_CLS"; }
  Score score(const Part& part, const graft::Tensor& outputs) const override {
    Score score = class_score(part, outputs);
    if (!graft::marks_entities(labels_.names)) return score;
    std::vector<std::vector<std::string>> truth, predicted;
    const auto classes = graft::likeliest(outputs);
    std::size_t next = 0;
    for (const auto& row : part.truth) {
      truth.emplace_back();
      predicted.emplace_back();
      for (const auto label : row.labels) {
        truth.back().push_back(labels_.names[static_cast<std::size_t>(label)]);
        predicted.back().push_back(labels_.names[static_cast<std::size_t>(classes[next++])]);
      }
    }
    const auto e = graft::entity_score(truth, predicted);
    score.json["entities"] = {
        {"precision", e.precision()}, {"recall", e.recall()}, {"f1", e.f1()}, {"truth", e.truth}};
    score.text +=
        concat("  entities: precision ", format_number(e.precision(), "%.4f"), ", recall ",
               format_number(e.recall(), "%.4f"), ", F1 ", format_number(e.f1(), "%.4f"), " (",
               e.truth, " true, ", e.predicted, " found)\n");
    score.results.emplace_back(concat("entity F1, ", part.name), format_number(e.f1(), "%.4f"));
    return score;
  }

  graft::text::TaggedData read(const std::string& path) const {
    if (!std::filesystem::exists(path)) throw graft::IoError(path + ": no such data file");
    return graft::text::load_tagged_data(path, {.words_column = labels_.columns.text_column,
                                                .tags_column = labels_.columns.label_column,
                                                .tagged = true,
                                                .tag_names = labels_.names});
  }
  Part encode(const graft::text::TaggedData& data, const std::string& path) {
    Part part;
    Index cut = 0, tokens = 0, words = 0;
    auto examples = graft::text::encode_tagged(data, tokenizer_, labels_.sequence_length, &cut);
    expect_whole(cut, path);
    for (const auto& example : examples) {
      part.truth.emplace_back();
      for (const auto label : example.labels)
        if (label != graft::text::kIgnoredLabel) part.truth.back().labels.push_back(label);
      words += std::ssize(part.truth.back().labels);
      tokens += example.length();
    }
    say_rows(path, std::ssize(examples),
             concat(", ", words, " words, ", tokens, " tokens",
                    cut > 0 ? concat(", ", cut, " cut to ", labels_.sequence_length) : ""));
    part.rows = graft::text_dataset<float>(std::move(examples), tokenizer_.pad_id());
    return part;
  }

  graft::text::Tokenizer tokenizer_;
};

}  // namespace

std::unique_ptr<Task> tagging_task(const TaskOptions& options) {
  return std::make_unique<TaggingTask>(options);
}

}  // namespace cli
