#include "graft/train/evaluate.hpp"

#include <CLI/CLI.hpp>
#include <cstdio>

#include "session.hpp"

namespace cli {
namespace {

using graft::Index;

struct EvaluateSettings {
  std::string model;
  std::vector<std::string> adapters;
  DataOptions data;
  Index batch_size = 4, limit = 0;
  bool json = false, losses = false;
  int threads = 0;
};

int evaluate(const EvaluateSettings& s) {
  set_threads(s.threads);
  const auto model = load_causal(s.model);
  const auto tokenizer = load_tokenizer(s.model);
  graft::AdapterModel adapters(model->sites(), methods());
  load_adapters(adapters, s.adapters, s.model);
  auto data = load_data(s.data, tokenizer);
  if (!s.json) say("data       " + data_line(s.data, data));
  if (s.limit > 0 && std::ssize(data.examples) > s.limit)
    data.examples.resize(static_cast<std::size_t>(s.limit));
  const auto rows = graft::text_dataset<float>(std::move(data.examples), tokenizer.pad_id());
  graft::io::Json report = graft::io::Json::object();
  const auto measure = [&](const char* name) {
    std::vector<float> losses;
    const auto e = graft::evaluate(*model, rows, s.batch_size, {}, &losses);
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
  auto* c = app.add_subcommand(
      "evaluate", "Perplexity and token accuracy on a file, with and without adapters");
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
  c->add_option("--batch-size", s->batch_size, "Rows in a batch")->check(CLI::PositiveNumber);
  c->add_option("--limit", s->limit, "At most so many rows; 0: all")->check(CLI::NonNegativeNumber);
  c->add_option("--threads", s->threads, "0: all cores")->check(CLI::NonNegativeNumber);
  c->add_flag("--json", s->json, "Print one JSON object");
  c->add_flag("--losses", s->losses, "With --json: the loss of every token too");
  c->callback([&run, s, unused] { run = [s, unused] { return evaluate(*s); }; });
}

}  // namespace cli
