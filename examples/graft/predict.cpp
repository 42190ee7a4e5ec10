#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <optional>
#include <sstream>

#include "encoder_commands.hpp"
#include "graft/text/tagged.hpp"
#include "graft/train/evaluate.hpp"
#include "images.hpp"
#include "labels.hpp"
#include "masks.hpp"
#include "options.hpp"
#include "texts.hpp"

namespace cli {
namespace {

namespace fs = std::filesystem;
using graft::concat;
using graft::Index;
using graft::io::Json;

struct PredictSettings {
  std::string model, adapter, data, output;
  LabelledOptions columns;
  Index batch_size = 32, top = 5;
  bool json = false, label_given = false;
  int threads = 0;
};

/// Classes of an adapter, or of the model where there is none.
Labels labels_of(const PredictSettings& s) {
  if (!s.adapter.empty()) {
    const auto folder = adapter_folder(s.adapter);
    if (!fs::is_directory(folder))
      throw graft::IoError(folder.string() + ": no such adapter folder");
    if (auto labels = load_labels(folder)) return *labels;
  }
  const auto path = fs::path(s.model) / "config.json";
  if (fs::is_regular_file(s.model))
    throw graft::ValueError(concat("the classes are not known: ",
                                   s.adapter.empty() ? "a GGUF file has none; give an --adapter"
                                                     : s.adapter + " has no labels.json"));
  const auto document = graft::io::read_json(path);
  const graft::io::JsonView json(document, path.string());
  Labels labels;
  labels.sequence_length = 1 << 20;
  labels.task = task_of_model(json, labels.task);
  if (labels.task == kMaskedLanguage) return labels;
  const auto names = json.find("id2label");
  if (!names)
    throw graft::ValueError(
        concat("the classes are not known: ", s.adapter.empty() ? s.model : s.adapter,
               " has no labels.json and ", path.string(), " no id2label"));
  std::map<Index, std::string> ordered;
  for (const auto& [key, value] : names->members()) ordered[std::stol(key)] = value.string();
  for (const auto& [number, name] : ordered) labels.names.push_back(name);
  if (labels.names.size() == 1) labels = {"regression", {}, {}, labels.sequence_length};
  return labels;
}

/// One call of `graft predict`.
class Prediction {
 public:
  explicit Prediction(const PredictSettings& settings)
      : s_(settings), labels_(labels_of(settings)) {
    columns_ = s_.columns;
    if (columns_.pair_column.empty()) columns_.pair_column = labels_.columns.pair_column;
  }

  int operator()() {
    set_threads(s_.threads);
    if (labels_.task == kMaskedLanguage) {
      masks();
    } else if (labels_.task == "image-classification") {
      images();
    } else if (labels_.task == "token-classification") {
      tags();
    } else {
      texts();
    }
    return 0;
  }

 private:
  Index classes() const { return std::max<Index>(1, std::ssize(labels_.names)); }

  /// The model with its adapter.
  void take() {
    opened_ = load_with_head(s_.model, labels_, 0);
    if (s_.adapter.empty() && !opened_.drawn.empty())
      throw graft::ValueError(
          concat(s_.model, ": the file has no layer ", opened_.drawn.front(),
                 labels_.task == kMaskedLanguage ? "" : concat(" for ", classes(), " classes"),
                 "; give an --adapter"));
    labels_.sequence_length = std::min(labels_.sequence_length, opened_.max_tokens);
    adapters_.emplace(opened_.model->sites(), methods());
    if (!s_.adapter.empty()) load_adapters(*adapters_, {s_.adapter}, s_.model);
  }
  graft::Tensor outputs(const graft::Dataset& rows) const {
    auto y = *graft::predict(*opened_.model, rows, s_.batch_size);
    expect_finite(y, *opened_.model, *adapters_);
    return y;
  }
  graft::text::Tokenizer tokenizer() const {
    auto loaded = load_tokenizer(s_.model);
    expect_tokenizer_of(*opened_.model, loaded, s_.model);
    return loaded;
  }

  /// A line with the class of one row of outputs. @param text  what was labelled; null: nothing
  std::string line(const float* row, const std::string* text) const {
    if (labels_.task == "regression") {
      const double value = row[0];
      if (s_.json) return graft::io::json_text({{"value", value}, {"text", *text}}, -1) + "\n";
      return concat(format_number(value, "%.6g"), ",", csv_field(*text), "\n");
    }
    const auto p = softmax(row, classes());
    const auto best = static_cast<std::size_t>(std::max_element(p.begin(), p.end()) - p.begin());
    if (!s_.json)
      return concat(csv_field(labels_.names[best]), ",", format_number(p[best], "%.4f"),
                    text != nullptr ? "," + csv_field(*text) : "", "\n");
    Json object{{"label", labels_.names[best]}, {"probability", p[best]}};
    if (text != nullptr) object["text"] = *text;
    for (std::size_t c = 0; c < p.size(); ++c) object["scores"][labels_.names[c]] = p[c];
    return graft::io::json_text(object, -1) + "\n";
  }
  void compare_with(const graft::Tensor& outputs, const std::vector<std::int64_t>& truth) const {
    const auto matrix = graft::confusion(outputs, std::span<const std::int64_t>(truth));
    std::fputs(confusion_text(last_name(s_.data), matrix, labels_).c_str(), stderr);
  }

  void texts() {
    const bool regression = labels_.task == "regression";
    take();
    const auto words = tokenizer();
    const auto texts = read_texts(s_.data, columns_);
    std::vector<std::int64_t> truth;
    std::vector<float> targets;
    if (s_.label_given) {
      const auto known = load_labelled(s_.data, columns_, labels_.names, regression);
      for (const auto& row : known.rows) {
        truth.push_back(row.label);
        targets.push_back(row.target);
      }
    }
    auto examples =
        encode_texts(texts, words, labels_.sequence_length, !columns_.pair_column.empty(), s_.data);
    const auto y = outputs(graft::text_dataset<float>(std::move(examples), words.pad_id()));
    std::string out = s_.json ? "" : regression ? "value,text\n" : "label,probability,text\n";
    for (std::size_t i = 0; i < texts.size(); ++i)
      out += line(y.data() + static_cast<Index>(i) * y.cols(), &texts[i].first);
    write_output(s_.output, out);
    if (!s_.label_given) return;
    if (!regression) return compare_with(y, truth);
    const auto score = graft::regression_score(targets, {y.data(), targets.size()});
    std::fprintf(stderr, "%s: mean squared error %.4f, correlation %.4f (%td rows)\n",
                 last_name(s_.data).c_str(), score.mean_squared_error, score.pearson, score.count);
  }

  void masks() {
    if (s_.label_given)
      throw graft::ValueError("--label-column: what a masked language model guesses has no labels");
    take();
    const auto words = tokenizer();
    std::vector<std::string> texts;
    for (auto& [text, pair] : read_texts(s_.data, columns_)) texts.push_back(std::move(text));
    const auto guesses =
        guess_masks(*opened_.model, words, texts, s_.top, labels_.sequence_length, s_.batch_size);
    for (const auto& text : guesses)
      for (const auto& mask : text)
        if (!std::isfinite(mask.front().probability)) fail_not_finite(*opened_.model, *adapters_);
    std::string out = s_.json ? "" : "mask,token,probability,text\n";
    for (std::size_t i = 0; i < texts.size(); ++i) {
      Json object{{"text", texts[i]}, {"masks", Json::array()}};
      for (std::size_t m = 0; m < guesses[i].size(); ++m) {
        object["masks"].push_back(Json::array());
        for (const auto& guess : guesses[i][m]) {
          if (s_.json)
            object["masks"].back().push_back(
                {{"token", guess.token}, {"probability", guess.probability}});
          else
            out += concat(m + 1, ",", csv_field(guess.token), ",",
                          format_number(guess.probability, "%.4f"), ",", csv_field(texts[i]), "\n");
        }
      }
      if (s_.json) out += graft::io::json_text(object, -1) + "\n";
    }
    write_output(s_.output, out);
  }

  void images() {
    if (!s_.label_given) columns_.label_column.clear();
    take();
    auto data = load_images(s_.data, s_.model, columns_, labels_.names);
    const auto truth = data.labels;
    const auto y = outputs(images_as_rows(std::move(data), s_.model));
    std::string out = s_.json ? "" : "label,probability\n";
    for (Index i = 0; i < y.rows(); ++i) out += line(y.data() + i * y.cols(), nullptr);
    write_output(s_.output, out);
    if (s_.label_given) compare_with(y, truth);
  }

  void tags() {
    take();
    const auto words = tokenizer();
    const auto columns = word_columns(labels_.columns);
    graft::text::TaggedData data;
    const std::string extension = fs::path(s_.data).extension().string();
    if (s_.data == "-" || extension == ".txt") {
      for (const auto& [text, pair] : read_texts(s_.data, columns_)) {
        std::istringstream stream(text);
        data.rows.push_back({{std::istream_iterator<std::string>(stream), {}}, {}});
        if (data.rows.back().words.empty()) data.rows.pop_back();
      }
    } else {
      data = graft::text::load_tagged_data(
          s_.data, {.words_column = columns.text_column,
                    .tags_column = columns.label_column,
                    .tagged = s_.label_given,
                    .tag_names = s_.label_given ? labels_.names : std::vector<std::string>()});
    }
    Index cut = 0;
    auto examples = graft::text::encode_tagged(data, words, labels_.sequence_length, &cut);
    if (cut > 0)
      throw graft::ValueError(concat(s_.data, ": ", cut, " texts have more than ",
                                     labels_.sequence_length, " tokens; split them"));
    const auto y = outputs(graft::text_dataset<float>(std::move(examples), words.pad_id()));
    const auto best = graft::likeliest(y);
    std::string out;
    std::size_t next = 0;
    std::vector<std::int64_t> truth;
    for (const auto& row : data.rows) {
      truth.insert(truth.end(), row.tags.begin(), row.tags.end());
      Json object{{"tokens", row.words}, {"tags", Json::array()}};
      for (const auto& word : row.words) {
        const auto& tag = labels_.names[static_cast<std::size_t>(best[next++])];
        if (s_.json) {
          object["tags"].push_back(tag);
        } else {
          out += concat(word, "\t", tag, "\n");
        }
      }
      out += s_.json ? graft::io::json_text(object, -1) + "\n" : "\n";
    }
    write_output(s_.output, out);
    if (s_.label_given) compare_with(y, truth);
  }

  const PredictSettings& s_;
  Labels labels_;
  LabelledOptions columns_;
  Classifier opened_;
  std::optional<graft::AdapterModel> adapters_;
};

}  // namespace

void add_predict(CLI::App& app, Command& run) {
  auto* c = app.add_subcommand(
      "predict", "Label texts, words or images, or guess mask tokens, with a trained head");
  auto s = std::make_shared<PredictSettings>();
  c->option_defaults()->always_capture_default();
  c->add_option(
       "--model", s->model,
       "Hugging Face folder of an encoder, a decoder, T5 or a vision model; GGUF file of a "
       "decoder")
      ->required();
  c->add_option("--adapter", s->adapter,
                "Folder that finetune wrote for a task with labels, or masked-language");
  c->add_option(
       "--data", s->data,
       "CSV, TSV, JSON lines or CoNLL columns; a .txt file, any other file of texts, and - "
       "for standard input: a text a line")
      ->required();
  c->add_option("--output", s->output, "File for the labels; standard output by default");
  add_column_options(*c, s->columns);
  c->add_option("--batch-size", s->batch_size, "Rows in a batch")->check(CLI::PositiveNumber);
  c->add_option("--top", s->top, "Masked-language: guesses for each mask token")
      ->check(CLI::PositiveNumber);
  c->add_option("--threads", s->threads, "0: all cores")->check(CLI::NonNegativeNumber);
  c->add_flag("--json", s->json,
              "JSON lines (with the probabilities of all classes) in place of CSV");
  c->footer("With --label-column, accuracy and confusion matrix go to standard error.");
  c->callback([&run, s, c] {
    run = [s, c] {
      s->label_given = given(*c, "label-column");
      return Prediction(*s)();
    };
  });
}

}  // namespace cli
