#include <cstdio>

#include "common.hpp"
#include "graft/text/dataset.hpp"
#include "graft/train/trainer.hpp"

namespace cli {
namespace {

struct Settings {
  std::string model, data, adapters;
  graft::Index batch_size = 4, sequence_length = 256, limit = 0;
  bool assistant_only = false, json = false;
  int threads = 0;
};

int evaluate(const Settings& s) {
  set_threads(s.threads);
  const auto model = load_causal(s.model);
  const auto tokenizer = load_tokenizer(s.model);
  graft::AdapterModel adapters(model->sites(), methods());
  load_adapters(adapters, split(s.adapters, ','));
  graft::text::LanguageDataOptions options;
  options.sequence_length = s.sequence_length;
  options.answers_only = s.assistant_only;
  const auto data = graft::text::load_language_data(s.data, tokenizer, options);
  std::vector<graft::Index> rows;
  for (graft::Index i = 0;
       i < static_cast<graft::Index>(data.examples.size()) && (s.limit == 0 || i < s.limit); ++i)
    rows.push_back(i);
  const auto pad = tokenizer.pad_id() >= 0 ? tokenizer.pad_id() : 0;
  const graft::train::MakeBatch make = [&](const std::vector<graft::Index>& picked) {
    auto text = graft::text::make_batch(data.examples, picked, {.pad_id = pad});
    graft::models::Batch batch;
    batch.batch = text.batch;
    batch.seq_len = text.seq_len;
    batch.ids = std::move(text.ids);
    batch.mask = std::move(text.mask);
    batch.labels = std::move(text.labels);
    return batch;
  };
  graft::io::Json report = graft::io::Json::object();
  const auto measure = [&](const char* name) {
    const auto e = graft::train::evaluate(*model, rows, s.batch_size, make);
    report[name] = {{"loss", e.loss},
                    {"perplexity", e.perplexity},
                    {"token_accuracy", e.accuracy},
                    {"tokens", e.tokens}};
    if (!s.json)
      std::printf("%-16s perplexity %.4f  loss %.5f  token accuracy %.2f %%  (%td tokens)\n", name,
                  e.perplexity, e.loss, 100 * e.accuracy, e.tokens);
  };
  const bool adapted = !adapters.active().empty();
  {
    const auto off = adapters.disabled();
    measure("base");
  }
  if (adapted) measure("adapted");
  if (s.json) print_json(report);
  return 0;
}

}  // namespace

void add_evaluate(CLI::App& app, Command& run) {
  auto* c = app.add_subcommand(
      "evaluate", "Perplexity and token accuracy on a file, with and without adapters");
  auto s = std::make_shared<Settings>();
  c->option_defaults()->always_capture_default();
  c->add_option("--model", s->model, "GGUF file or Hugging Face folder")->required();
  c->add_option("--data", s->data, "Plain text or JSON lines")->required();
  c->add_option("--adapter", s->adapters, "Adapter folders separated by commas");
  c->add_option("--batch-size", s->batch_size, "Rows in a batch")->check(CLI::PositiveNumber);
  c->add_option("--sequence-length", s->sequence_length, "Tokens in a row")
      ->check(CLI::Range(2, 1 << 20));
  c->add_option("--limit", s->limit, "At most so many rows; 0: all")->check(CLI::NonNegativeNumber);
  c->add_flag("--assistant-loss-only", s->assistant_only, "Only what the assistant says counts");
  c->add_option("--threads", s->threads, "0: all cores")->check(CLI::NonNegativeNumber);
  c->add_flag("--json", s->json, "Print one JSON object");
  c->callback([&run, s] { run = [s] { return evaluate(*s); }; });
}

}  // namespace cli
