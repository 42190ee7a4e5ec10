#include "graft/train/evaluate.hpp"

#include <CLI/CLI.hpp>
#include <cmath>
#include <cstdio>
#include <numeric>

#include "graft/text/sampling.hpp"
#include "labels.hpp"
#include "masks.hpp"
#include "options.hpp"

namespace cli {
namespace {

namespace fs = std::filesystem;
using graft::concat;
using graft::Index;

struct EvaluateSettings {
  std::string model;
  std::vector<std::string> adapters;
  DataOptions data;
  LabelledOptions columns;
  Index batch_size = 4, limit = 0;
  double mask_rate = 0.15, held_out = 0;
  std::uint64_t seed = 0;
  bool json = false, losses = false, for_masks = false;
  int threads = 0;
};

/// A model and the texts on which it is judged.
struct Subject {
  std::unique_ptr<graft::models::Model> model;
  graft::Dataset rows;
  std::vector<std::string> lines;
};

/// Whether the model guesses hidden tokens, as its adapters or its file say.
/// @throws ValueError if it gives labels
bool guesses_masks(const EvaluateSettings& s) {
  std::string task;
  if (const auto labels = labels_of_adapters(s.adapters)) {
    task = labels->task;
  } else if (const auto path = fs::path(s.model) / "config.json"; fs::exists(path)) {
    const auto document = graft::io::read_json(path);
    task = task_of_model({document, path.string()}, "");
  }
  if (task.empty() || task == kMaskedLanguage) return !task.empty();
  throw graft::ValueError(concat(s.model, s.adapters.empty() ? "" : " with " + s.adapters.back(),
                                 ": the head is for ", task,
                                 "; graft predict with --label-column judges it"));
}

Subject language_model(const EvaluateSettings& s, const graft::text::Tokenizer& tokenizer) {
  if (s.for_masks)
    throw graft::ValueError(
        "--mask-rate, --text-column and --no-header: go with masked language models");
  Subject subject;
  subject.model = load_causal(s.model);
  auto data = load_data(s.data, tokenizer);
  subject.lines = {"data       " + data_line(s.data, data)};
  subject.rows = graft::text_dataset<float>(std::move(data.examples), tokenizer.pad_id());
  return subject;
}

Subject masked_model(const EvaluateSettings& s, const graft::text::Tokenizer& tokenizer) {
  auto opened = load_masked(s.model, s.seed);
  if (s.adapters.empty() && !opened.drawn.empty())
    throw graft::ValueError(concat(s.model, ": the file has no layer ", opened.drawn.front(),
                                   "; give an --adapter of finetune --task masked-language"));
  expect_tokenizer_of(*opened.model, tokenizer, s.model);
  auto texts = masked_rows(opened, tokenizer, s.data, s.columns, s.mask_rate, s.seed);
  Subject subject{std::move(opened.model), std::move(texts.rows), {"data       " + texts.line}};
  if (const auto drawn = drawn_line(opened); !drawn.empty()) subject.lines.push_back(drawn);
  return subject;
}

int evaluate(const EvaluateSettings& s) {
  set_threads(s.threads);
  const bool masked = guesses_masks(s);
  const auto tokenizer = load_tokenizer(s.model);
  auto [model, rows, lines] = (masked ? masked_model : language_model)(s, tokenizer);
  graft::AdapterModel adapters(model->sites(), methods());
  load_adapters(adapters, s.adapters, s.model);
  if (!s.json)
    for (const auto& line : lines) say(line);
  if (s.held_out > 0)
    rows = graft::subset(rows, graft::text::split_held_out(rows.rows, s.held_out, s.seed).held_out);
  if (s.limit > 0 && rows.rows > s.limit) {
    std::vector<Index> first(static_cast<std::size_t>(s.limit));
    std::iota(first.begin(), first.end(), Index{0});
    rows = graft::subset(rows, std::move(first));
  }
  graft::io::Json report = graft::io::Json::object();
  const auto measure = [&](const char* name) {
    std::vector<float> losses;
    const auto e = graft::evaluate(*model, rows, s.batch_size, {}, &losses);
    if (!std::isfinite(e->loss)) fail_not_finite(*model, adapters);
    report[name] = {{"loss", e->loss},
                    {"perplexity", e->perplexity},
                    {"token_accuracy", e->accuracy},
                    {"tokens", e->count}};
    if (s.losses) report[name]["losses"] = losses;
    if (s.json) return;
    std::printf("%-10s perplexity %.4f  loss %.5f  token accuracy %.2f %%  (%td tokens)\n", name,
                e->perplexity, e->loss, 100 * e->accuracy, e->count);
    std::fflush(stdout);
  };
  {
    const auto off = adapters.disabled();
    measure("base");
  }
  if (!adapters.active().empty()) measure("adapted");
  report["rows"] = rows.rows;
  report["peak_rss_mib"] = peak_rss_mib();
  if (s.json) print_json(report);
  return 0;
}

}  // namespace

void add_evaluate(CLI::App& app, Command& run) {
  auto* c = app.add_subcommand("evaluate",
                               "Perplexity and token accuracy on a file, with and without "
                               "adapters: of the next token, or of "
                               "hidden ones (masked language models)");
  auto s = std::make_shared<EvaluateSettings>();
  auto unused = std::make_shared<std::string>();
  c->option_defaults()->always_capture_default();
  c->add_option("--config", *unused, "JSON file with any of these options; the command line wins");
  c->add_option("--model", s->model, "GGUF file or Hugging Face folder")->required();
  add_data_options(*c, s->data);
  c->add_option("--adapter", s->adapters,
                "Adapter FOLDER or NAME=FOLDER; may be repeated, or separated by commas: all are "
                "active")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->delimiter(',');
  c->add_option(
       "--held-out", s->held_out,
       "Only the rows that finetune with this share and --seed keeps for evaluation; 0: all")
      ->check(CLI::Range(0.0, 0.99));
  c->add_option("--mask-rate", s->mask_rate,
                "Masked language models: share of the tokens that are to be guessed");
  c->add_option("--text-column", s->columns.text_column,
                "Masked language models: column of the text of CSV, TSV, JSON lines");
  c->add_flag("--no-header", s->columns.no_header,
              "CSV and TSV: the first line is a row; columns are called 1, 2, ...");
  c->add_option("--seed", s->seed, "Of --held-out and of what is hidden: that of finetune");
  c->add_option("--batch-size", s->batch_size, "Rows in a batch")->check(CLI::PositiveNumber);
  c->add_option("--limit", s->limit, "At most so many rows; 0: all")->check(CLI::NonNegativeNumber);
  c->add_option("--threads", s->threads, "0: all cores")->check(CLI::NonNegativeNumber);
  c->add_flag("--json", s->json, "Print one JSON object");
  c->add_flag("--losses", s->losses, "With --json: the loss of every token too");
  c->callback([&run, s, unused, c] {
    run = [s, unused, c] {
      for (const char* option : {"mask-rate", "text-column", "no-header"})
        s->for_masks = s->for_masks || given(*c, option);
      return evaluate(*s);
    };
  });
}

}  // namespace cli
