#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>

#include "encoder_commands.hpp"
#include "graft/train/evaluate.hpp"
#include "labels.hpp"
#include "options.hpp"
#include "texts.hpp"

namespace cli {
namespace {

namespace fs = std::filesystem;
using graft::concat;
using graft::Index;
using graft::io::Json;

struct Settings {
  std::string model, adapter, data, output;
  LabelledOptions columns;
  Index batch_size = 32;
  bool json = false, label_given = false;
  int threads = 0;
};

/// Classes of an adapter, or of the model where there is none.
Labels labels_of(const Settings& s) {
  if (!s.adapter.empty())
    if (auto labels = load_labels(s.adapter)) return *labels;
  const auto path = fs::path(s.model) / "config.json";
  const auto document = graft::io::read_json(path);
  const graft::io::JsonView json(document, path.string());
  const auto names = json.find("id2label");
  if (!names)
    throw graft::ValueError(
        concat("the classes are not known: ", s.adapter.empty() ? s.model : s.adapter,
               " has no labels.json and ", path.string(), " no id2label"));
  std::map<Index, std::string> ordered;
  for (const auto& [key, value] : names->members()) ordered[std::stol(key)] = value.string();
  Labels labels;
  for (const auto& [number, name] : ordered) labels.names.push_back(name);
  labels.sequence_length = 1 << 20;
  return labels;
}

/// e^z / Σ e^z
std::vector<double> softmax(const float* z, Index count) {
  const double highest = *std::max_element(z, z + count);
  std::vector<double> p;
  for (Index c = 0; c < count; ++c) p.push_back(std::exp(static_cast<double>(z[c]) - highest));
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& v : p) v /= sum;
  return p;
}

int predict(const Settings& s) {
  set_threads(s.threads);
  const auto labels = labels_of(s);
  auto columns = s.columns;
  if (columns.pair_column.empty()) columns.pair_column = labels.columns.pair_column;
  const auto tokenizer = load_tokenizer(s.model);
  const Index classes = std::ssize(labels.names);
  const auto opened = load_classifier(s.model, classes, 0);
  if (s.adapter.empty() && !opened.drawn.empty())
    throw graft::ValueError(concat(s.model, ": the file has no layer ", opened.drawn.front(),
                                   " for ", classes, " classes; give an --adapter"));
  expect_tokenizer_of(*opened.model, tokenizer, s.model);
  graft::AdapterModel adapters(opened.model->sites(), methods());
  if (!s.adapter.empty()) {
    load_adapters(adapters, {s.adapter});
    compare_base(s.adapter, s.model);
  }

  const auto texts = read_texts(s.data, columns);
  auto examples =
      encode_texts(texts, tokenizer, std::min(labels.sequence_length, opened.max_tokens),
                   !columns.pair_column.empty());
  const auto rows = graft::text_dataset<float>(std::move(examples), tokenizer.pad_id());
  const auto logits = graft::predict(*opened.model, rows, s.batch_size);
  std::string out = s.json ? "" : "label,probability,text\n";
  for (Index i = 0; i < rows.rows; ++i) {
    const auto p = softmax(logits->data() + i * classes, classes);
    const auto best = std::max_element(p.begin(), p.end()) - p.begin();
    const auto& name = labels.names[static_cast<std::size_t>(best)];
    const auto& text = texts[static_cast<std::size_t>(i)].first;
    const double probability = p[static_cast<std::size_t>(best)];
    if (s.json) {
      Json line{{"label", name}, {"probability", probability}, {"text", text}};
      for (std::size_t c = 0; c < labels.names.size(); ++c) line["scores"][labels.names[c]] = p[c];
      out += graft::io::json_text(line, -1) + "\n";
    } else {
      out += concat(csv_field(name), ",", format_number(probability, "%.4f"), ",", csv_field(text),
                    "\n");
    }
  }
  write_output(s.output, out);
  if (!s.label_given) return 0;
  const auto truth = load_labelled(s.data, columns, labels.names);
  std::vector<std::int64_t> numbers;
  for (const auto& row : truth.rows) numbers.push_back(row.label);
  const auto matrix = graft::confusion(*logits, std::span<const std::int64_t>(numbers));
  std::fputs(confusion_text(last_name(s.data), matrix, labels).c_str(), stderr);
  return 0;
}

}  // namespace

void add_predict(CLI::App& app, Command& run) {
  auto* c = app.add_subcommand("predict", "Label texts with a trained classifier");
  auto s = std::make_shared<Settings>();
  c->option_defaults()->always_capture_default();
  c->add_option("--model", s->model, "Hugging Face folder of an encoder")->required();
  c->add_option("--adapter", s->adapter, "Folder that finetune --task classification wrote");
  c->add_option("--data", s->data,
                "CSV, TSV or JSON lines; any other file, and - for standard input: a text a line")
      ->required();
  c->add_option("--output", s->output, "File for the labels; standard output by default");
  add_column_options(*c, s->columns);
  c->add_option("--batch-size", s->batch_size, "Rows in a batch")->check(CLI::PositiveNumber);
  c->add_option("--threads", s->threads, "0: all cores")->check(CLI::NonNegativeNumber);
  c->add_flag("--json", s->json,
              "JSON lines with the probabilities of all classes, in place of CSV");
  c->footer("With --label-column, accuracy and confusion matrix go to standard error.");
  c->callback([&run, s, c] {
    run = [s, c] {
      s->label_given = given(*c, "label-column");
      return predict(*s);
    };
  });
}

}  // namespace cli
