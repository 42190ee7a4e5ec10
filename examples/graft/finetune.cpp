#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <optional>

#include "common.hpp"
#include "graft/optim/adamw.hpp"
#include "graft/text/dataset.hpp"
#include "graft/train/generate.hpp"
#include "graft/train/trainer.hpp"
#include "report.hpp"

#if defined(GRAFT_HAVE_BARKEEP)
#include <barkeep/barkeep.h>
#endif

namespace cli {
namespace {

namespace fs = std::filesystem;
using graft::Index;
using graft::io::Json;
namespace train = graft::train;

std::atomic<bool> interrupted{false};
extern "C" void on_interrupt(int) { interrupted = true; }

struct Settings {
  std::string model, data, output, method = "lora", adapter_config, target_modules = "all-linear",
                                   exclude_modules, init, bias, layers, scheduler = "cosine",
                                   report, sample_prompt, resume, settings_json;
  Index rank = 16, batch_size = 4, accumulation = 1, sequence_length = 256, steps = 0,
        warmup_steps = 0, eval_interval = 0, checkpoint_interval = 0, sample_tokens = 48;
  double alpha = 32, dropout = 0, epochs = 1, learning_rate = 2e-4, weight_decay = 0.01,
         beta1 = 0.9, beta2 = 0.999, eps = 1e-8, clip = 1, held_out = 0.05, loraplus_ratio = 1;
  bool rslora = false, assistant_only = false, no_packing = false, activation_checkpointing = false,
       json = false;
  std::uint64_t seed = 0;
  int threads = 0;
};

/// Prints progress: a bar on a terminal, plain lines elsewhere.
class Progress {
 public:
  Progress(Index steps, Index first) : steps_(steps), done_(first), first_(first) {
#if defined(GRAFT_HAVE_BARKEEP)
    if (on_terminal()) {
      barkeep::ProgressBarConfig<Index> bar;
      bar.total = steps;
      bar.show = false;
      barkeep::AnimationConfig
          text;  // words beside the bar, which change: a status whose animation is empty
      text.style = barkeep::Strings{""};
      text.show = false;
      status_ = barkeep::Status(text);
      display_ = barkeep::Composite({barkeep::ProgressBar(&done_, bar), status_});
      display_->show();
    }
#endif
  }
  void step(const train::StepReport& r) {
    done_ = r.step;
    const auto now = std::chrono::steady_clock::now();
    const double seconds = std::chrono::duration<double>(now - begin_).count();
    const double left =
        seconds / static_cast<double>(r.step - first_) * static_cast<double>(steps_ - r.step);
    char text[160];
    std::snprintf(text, sizeof text,
                  "step %td/%td  loss %.4f  lr %.2e  %.0f tokens/s  %d:%02d left", r.step, steps_,
                  r.loss, r.learning_rate, r.tokens_per_second, static_cast<int>(left) / 60,
                  static_cast<int>(left) % 60);
#if defined(GRAFT_HAVE_BARKEEP)
    if (display_) {
      status_->message(text);
      return;
    }
#endif
    if (r.step == steps_ || r.step == first_ + 1 || r.step % std::max<Index>(1, steps_ / 20) == 0)
      std::printf("%s\n", text);
    std::fflush(stdout);
  }
  void line(const std::string& text) {
    std::printf("%s%s\n", on_terminal() ? "\r\033[K" : "", text.c_str());
    std::fflush(stdout);
  }
  void done() {
#if defined(GRAFT_HAVE_BARKEEP)
    if (display_) display_->done();
    display_.reset();
#endif
  }

 private:
  Index steps_;
  std::atomic<Index> done_;  // the bar reads it from a thread of its own
  Index first_;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
#if defined(GRAFT_HAVE_BARKEEP)
  std::shared_ptr<barkeep::StatusDisplay> status_;
  std::shared_ptr<barkeep::CompositeDisplay> display_;
#endif
};

graft::ConfigValue::Map adapter_configuration(const Settings& s) {
  if (!s.adapter_config.empty()) return graft::read_config_file(s.adapter_config);
  std::string type = s.method;
  for (char& c : type)
    c = static_cast<char>(c == '-' ? '_' : std::toupper(static_cast<unsigned char>(c)));
  const bool dora = type == "DORA", rslora = type == "RSLORA";
  if (dora || rslora) type = "LORA";
  auto config = methods().at(type).defaults;
  const auto set = [&](std::initializer_list<const char*> keys, const graft::ConfigValue& value) {
    for (const char* key : keys)
      if (config.contains(key)) config[key] = value;
  };
  set({"r", "init_r"}, s.rank);
  set({"lora_alpha", "alpha"}, s.alpha);
  set({"lora_dropout"}, s.dropout);
  set({"use_rslora"}, s.rslora || rslora);
  if (dora) set({"use_dora"}, true);
  const auto targets = [](const std::string& text) -> graft::ConfigValue {
    // A name list has neither the signs of a regular expression nor the word all-linear.
    if (text == "all-linear" || text.find_first_of("*+?()[]{}|^$\\") != std::string::npos)
      return text;
    graft::ConfigValue::List list;
    for (const auto& name : split(text, ',')) list.emplace_back(name);
    return list;
  };
  set({"target_modules"}, targets(s.target_modules));
  if (!s.exclude_modules.empty()) set({"exclude_modules"}, targets(s.exclude_modules));
  if (!s.bias.empty()) set({"bias"}, s.bias);
  if (!s.layers.empty()) {
    graft::ConfigValue::List list;
    for (const auto& number : split(s.layers, ',')) {
      if (number.find_first_not_of("0123456789") != std::string::npos)
        throw graft::ValueError(graft::concat("--layers: '", number, "' is no layer number"));
      list.emplace_back(std::stoll(number));
    }
    set({"layers_to_transform"}, list);
  }
  if (!s.init.empty()) {
    const graft::ConfigValue value = s.init == "true" || s.init == "false"
                                         ? graft::ConfigValue(s.init == "true")
                                         : graft::ConfigValue(s.init);
    set({"init_lora_weights", "init_weights"}, value);
  }
  config["task_type"] = "CAUSAL_LM";
  config["base_model_name_or_path"] = fs::path(s.model).filename().string();
  return config;
}

std::vector<graft::ParameterGroup> parameter_groups(const graft::AdapterSet<float>& set,
                                                    double ratio) {
  graft::ParameterGroup plain, fast;
  fast.learning_rate_ratio = ratio;
  for (const auto& [key, tensor] : set.tensors()) {
    if (!tensor.parameter || !tensor.parameter.trainable()) continue;
    (tensor.group == "lora_B" && ratio != 1 ? fast : plain).parameters.push_back(tensor.parameter);
  }
  return {plain, fast};
}

std::string number(double value, const char* format = "%.4f") {
  char text[48];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

Json curve_json(const std::vector<std::pair<double, double>>& points) {
  Json list = Json::array();
  for (const auto& [x, y] : points) list.push_back({x, y});
  return list;
}
std::vector<std::pair<double, double>> curve_of(const Json& list) {
  std::vector<std::pair<double, double>> points;
  for (const auto& p : list) points.emplace_back(p.at(0).get<double>(), p.at(1).get<double>());
  return points;
}

int finetune(const Settings& s, const CLI::App& command) {
  if (s.output.empty()) throw graft::ValueError("--output: a folder for the adapter is needed");
  set_threads(s.threads);
  const fs::path output = s.output;
  if (!fs::exists(s.data)) throw graft::IoError(s.data + ": no such data file");
  const auto model = load_causal(s.model);
  const auto tokenizer = load_tokenizer(s.model);
  model->checkpoint_blocks = s.activation_checkpointing;
  const auto say = [&](const std::string& text) {
    if (!s.json) std::printf("%s\n", text.c_str());
  };
  say(graft::concat("model      ", s.model, " (", model->info().architecture, ", ",
                    model->info().layers, " layers, width ", model->info().hidden_size, ", ",
                    mib(bytes_of(s.model)), " mapped from the file)"));

  graft::text::LanguageDataOptions options;
  options.sequence_length = s.sequence_length;
  options.packing = !s.no_packing;
  options.answers_only = s.assistant_only;
  const auto data = graft::text::load_language_data(s.data, tokenizer, options);
  const auto split =
      graft::text::split_held_out(static_cast<Index>(data.examples.size()), s.held_out, s.seed);
  say(graft::concat("data       ", s.data, ": ", data.tokens, " tokens in ", data.examples.size(),
                    " sequences, ", split.held_out.size(), " held out"));

  graft::AdapterModel adapters(model->sites(), methods());
  graft::TorchGenerator generator(s.seed);
  auto& set = adapters.add("default", adapter_configuration(s), generator);
  Index total = set.trainable_elements();
  for (const auto* site : model->sites().linear)
    total += site->in_features() * site->out_features();
  for (const auto* site : model->sites().norm)
    total += site->norm().weight ? site->norm().weight.size() : 0;
  say(graft::concat(
      "adapter    ", set.info().name, " at ", set.parts().size(),
      " modules: ", set.trainable_elements(), " trained of ", total, " parameters (",
      number(100.0 * static_cast<double>(set.trainable_elements()) / static_cast<double>(total),
             "%.2f"),
      " %)"));

  train::TrainConfig config;
  const auto rows = static_cast<double>(split.train.size());
  config.steps = s.steps > 0
                     ? s.steps
                     : static_cast<Index>(std::ceil(
                           s.epochs * rows / static_cast<double>(s.batch_size * s.accumulation)));
  config.batch_size = s.batch_size;
  config.accumulation = s.accumulation;
  config.learning_rate = s.learning_rate;
  config.schedule = {graft::schedule_named(s.scheduler), s.warmup_steps, 0};
  config.max_gradient_norm = s.clip;
  config.eval_interval = s.eval_interval;
  config.checkpoint_interval = s.checkpoint_interval;
  config.checkpoints = output / "checkpoints";
  config.seed = s.seed;
  graft::AdamW optimizer(parameter_groups(set, s.loraplus_ratio),
                         {s.learning_rate, s.beta1, s.beta2, s.eps, s.weight_decay});
  train::Trainer trainer(*model, adapters, "default", optimizer, config);

  const auto pad = tokenizer.pad_id() >= 0 ? tokenizer.pad_id() : 0;
  const train::MakeBatch make = [&](const std::vector<Index>& picked) {
    auto text = graft::text::make_batch(data.examples, picked, {.pad_id = pad});
    graft::models::Batch batch;
    batch.batch = text.batch;
    batch.seq_len = text.seq_len;
    batch.ids = std::move(text.ids);
    batch.mask = std::move(text.mask);
    batch.labels = std::move(text.labels);
    return batch;
  };
  const auto sample = [&] {
    train::GenerateConfig g;
    g.max_tokens = s.sample_tokens;
    g.temperature = 0.7;
    g.top_p = 0.95;
    g.seed = s.seed;
    g.end_ids = tokenizer.end_ids();
    return tokenizer.decode(train::generate(*model, tokenizer.encode(s.sample_prompt), g), true);
  };
  const auto stop = [] { return interrupted.load(); };

  std::vector<std::pair<double, double>> losses, held_out, speed;
  train::Evaluation before;
  std::string sample_before;
  if (!s.resume.empty()) {
    fs::path checkpoint = s.resume;
    if (s.resume == "last" || s.resume == "auto" || fs::is_directory(checkpoint / "checkpoints")) {
      const auto all = train::list_checkpoints(s.resume == "last" || s.resume == "auto"
                                                   ? config.checkpoints
                                                   : checkpoint / "checkpoints");
      if (all.empty())
        throw graft::IoError(
            graft::concat(config.checkpoints.string(), ": no checkpoint to go on from"));
      checkpoint = all.back().second;
    }
    const Json extra = trainer.resume(checkpoint);
    losses = curve_of(extra.at("losses"));
    held_out = curve_of(extra.at("held_out"));
    speed = curve_of(extra.at("speed"));
    before.perplexity = extra.at("perplexity_before");
    before.accuracy = extra.at("accuracy_before");
    sample_before = extra.at("sample_before");
    say(graft::concat("going on from step ", trainer.step(), " (", checkpoint.string(), ")"));
  } else {
    adapters.activate({});
    if (!split.held_out.empty()) {
      before = train::evaluate(*model, split.held_out, s.batch_size, make, stop);
      held_out.emplace_back(0, before.loss);
      say(graft::concat("before     held-out perplexity ", number(before.perplexity, "%.3f"),
                        ", token accuracy ", number(100 * before.accuracy, "%.1f"), " %"));
    }
    if (!s.sample_prompt.empty()) {
      sample_before = sample();
      say(graft::concat("sample     ", s.sample_prompt, sample_before));
    }
    adapters.activate({"default"});
  }

  std::signal(SIGINT, on_interrupt);
  std::signal(SIGTERM, on_interrupt);
  fs::create_directories(output);
  train::Evaluation after = before;
  const auto begin = std::chrono::steady_clock::now();
  const Index first = trainer.step();
  {
    std::optional<Progress> progress;
    if (!s.json) progress.emplace(config.steps, first);
    train::Trainer::Callbacks callbacks;
    callbacks.on_step = [&](const train::StepReport& r) {
      losses.emplace_back(r.step, r.loss);
      speed.emplace_back(r.step, r.tokens_per_second);
      if (progress) progress->step(r);
    };
    callbacks.on_evaluation = [&](Index step, const train::Evaluation& e) {
      after = e;
      held_out.emplace_back(step, e.loss);
      if (progress)
        progress->line(graft::concat("held out after ", step, " steps: perplexity ",
                                     number(e.perplexity, "%.3f"), ", token accuracy ",
                                     number(100 * e.accuracy, "%.1f"), " %"));
    };
    callbacks.checkpoint_extra = [&] {
      return Json{{"losses", curve_json(losses)},       {"held_out", curve_json(held_out)},
                  {"speed", curve_json(speed)},         {"perplexity_before", before.perplexity},
                  {"accuracy_before", before.accuracy}, {"sample_before", sample_before}};
    };
    callbacks.stop = stop;
    try {
      trainer.run(split.train, make, split.held_out, callbacks);
    } catch (const graft::ValueError& error) {
      if (progress) progress->done();
      throw Exit{1, graft::concat(error.what(), "; the last checkpoint is kept in ",
                                  config.checkpoints.string())};
    }
    if (progress) progress->done();
  }
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  if (interrupted && trainer.step() < config.steps)
    throw Exit{130, graft::concat("interrupted after step ", trainer.step(),
                                  "; go on with the same options and --resume last")};

  if (!split.held_out.empty() && (config.eval_interval == 0 || after.tokens == 0)) {
    after = train::evaluate(*model, split.held_out, s.batch_size, make);
    held_out.emplace_back(trainer.step(), after.loss);
  }
  adapters.save("default", output);
  Json settings = Json::object();
  for (const auto* option : command.get_options()) {
    const std::string name = option->get_single_name();
    if (name == "help" || name == "config" || name == "resume") continue;
    if (option->count() > 0)
      settings[name] = option->results().back();
    else if (!option->get_default_str().empty())
      settings[name] = option->get_default_str();
  }
  const std::string settings_text = graft::io::json_text(settings, 2) + "\n";
  graft::io::write_file_atomically(output / "settings.json",
                                   std::as_bytes(std::span(settings_text)));

  std::string sample_after;
  if (!s.sample_prompt.empty()) sample_after = sample();
  const double tokens = static_cast<double>((trainer.step() - first) * s.batch_size *
                                            s.accumulation * s.sequence_length);
  const double rate = seconds > 0 ? tokens / seconds : 0;
  const double peak = peak_rss_mib();
  if (s.json) {
    print_json({{"steps", trainer.step()},
                {"seconds", seconds},
                {"tokens_per_second", rate},
                {"trainable", set.trainable_elements()},
                {"parameters", total},
                {"perplexity_before", before.perplexity},
                {"perplexity_after", after.perplexity},
                {"accuracy_before", before.accuracy},
                {"accuracy_after", after.accuracy},
                {"loss_first", losses.empty() ? 0 : losses.front().second},
                {"loss_last", losses.empty() ? 0 : losses.back().second},
                {"peak_rss_mib", peak},
                {"adapter", output.string()},
                {"sample_before", sample_before},
                {"sample_after", sample_after}});
  } else {
    if (!split.held_out.empty())
      say(graft::concat("held-out perplexity  ", number(before.perplexity, "%.3f"), " -> ",
                        number(after.perplexity, "%.3f")));
    if (!s.sample_prompt.empty()) {
      say(graft::concat("sample before  ", s.sample_prompt, sample_before));
      say(graft::concat("sample after   ", s.sample_prompt, sample_after));
    }
    say(graft::concat("training       ", number(seconds, "%.1f"), " s, peak memory ",
                      number(peak, "%.0f"), " MiB"));
    say(graft::concat("adapter        ", output.string(), " (",
                      mib(bytes_of(output / "adapter_model.safetensors")), ")"));
  }
  if (!s.report.empty()) {
    Report report;
    report.title = graft::concat("Fine-tuning ", fs::path(s.model).filename().string(), " with ",
                                 set.info().name);
    report.results = {{"held-out perplexity before", number(before.perplexity, "%.3f")},
                      {"held-out perplexity after", number(after.perplexity, "%.3f")},
                      {"token accuracy before", number(100 * before.accuracy, "%.2f %%")},
                      {"token accuracy after", number(100 * after.accuracy, "%.2f %%")},
                      {"steps", std::to_string(trainer.step())},
                      {"time", number(seconds, "%.1f s")},
                      {"tokens per second", number(rate, "%.0f")},
                      {"trained parameters", std::to_string(set.trainable_elements())},
                      {"all parameters", std::to_string(total)},
                      {"peak memory", number(peak, "%.0f MiB")}};
    for (const auto& [key, value] : settings.items())
      report.settings.emplace_back(key, value.get<std::string>());
    if (!s.sample_prompt.empty())
      report.samples = {{"before", s.sample_prompt + sample_before},
                        {"after", s.sample_prompt + sample_after}};
    report.losses = {{"training", losses}, {"held out", held_out}};
    report.throughput = {{"tokens per second", speed}};
    write_report(s.report, report);
    say(graft::concat("report         ", s.report));
  }
  std::error_code ignored;
  fs::remove_all(config.checkpoints, ignored);
  return 0;
}

}  // namespace

void add_finetune(CLI::App& app, Command& run) {
  auto* c = app.add_subcommand("finetune",
                               "Train an adapter: model + text or JSON lines -> adapter folder");
  auto s = std::make_shared<Settings>();
  c->option_defaults()->always_capture_default();
  std::string unused;
  c->add_option("--config", unused, "JSON file with any of these options; the command line wins");
  c->add_option("--model", s->model, "GGUF file or Hugging Face folder")->required();
  c->add_option("--data", s->data,
                "Plain text, or .jsonl with messages, prompt and completion, or text")
      ->required();
  c->add_option("--output", s->output, "Folder for the adapter")->required();
  c->add_option("--method", s->method, "Method by name (see graft methods)");
  c->add_option("--adapter-config", s->adapter_config,
                "adapter_config.json in place of the options of the method");
  c->add_option("--rank", s->rank, "Rank of the factors")->check(CLI::PositiveNumber);
  c->add_option("--alpha", s->alpha, "Scaling is alpha / rank");
  c->add_option("--dropout", s->dropout, "On the input of the adapter")
      ->check(CLI::Range(0.0, 0.999));
  c->add_flag("--rslora", s->rslora, "Scaling alpha / sqrt(rank)");
  c->add_option("--init", s->init,
                "Initial values: true, gaussian, orthogonal, pissa, olora, mica");
  c->add_option("--bias", s->bias, "Trained biases: none, all, lora_only");
  c->add_option("--target-modules", s->target_modules,
                "Names separated by commas, a regular expression, or all-linear");
  c->add_option("--exclude-modules", s->exclude_modules, "The same, for modules to leave out");
  c->add_option("--layers", s->layers, "Layer numbers separated by commas; all by default");
  c->add_option("--steps", s->steps, "Optimiser steps; 0: by --epochs")
      ->check(CLI::NonNegativeNumber);
  c->add_option("--epochs", s->epochs, "Passes over the data")->check(CLI::PositiveNumber);
  c->add_option("--batch-size", s->batch_size, "Rows in a batch")->check(CLI::PositiveNumber);
  c->add_option("--gradient-accumulation", s->accumulation, "Batches in a step")
      ->check(CLI::PositiveNumber);
  c->add_option("--sequence-length", s->sequence_length, "Tokens in a row")
      ->check(CLI::Range(2, 1 << 20));
  c->add_flag("--no-packing", s->no_packing, "Each document makes rows of its own");
  c->add_flag("--assistant-loss-only", s->assistant_only,
              "Only what the assistant says counts in the loss");
  c->add_option("--learning-rate", s->learning_rate, "Peak learning rate")
      ->check(CLI::PositiveNumber);
  c->add_option("--scheduler", s->scheduler, "constant, linear or cosine")
      ->check(CLI::IsMember({"constant", "linear", "cosine"}));
  c->add_option("--warmup-steps", s->warmup_steps, "Steps of rising learning rate")
      ->check(CLI::NonNegativeNumber);
  c->add_option("--weight-decay", s->weight_decay, "AdamW")->check(CLI::NonNegativeNumber);
  c->add_option("--beta1", s->beta1, "AdamW")->check(CLI::Range(0.0, 0.99999));
  c->add_option("--beta2", s->beta2, "AdamW")->check(CLI::Range(0.0, 0.999999));
  c->add_option("--eps", s->eps, "AdamW")->check(CLI::PositiveNumber);
  c->add_option("--loraplus-ratio", s->loraplus_ratio, "Learning rate of B over that of A (LoRA+)")
      ->check(CLI::PositiveNumber);
  c->add_option("--max-grad-norm", s->clip, "Clipping; 0: none")->check(CLI::NonNegativeNumber);
  c->add_option("--held-out", s->held_out, "Share of the rows kept for evaluation")
      ->check(CLI::Range(0.0, 0.99));
  c->add_option("--eval-interval", s->eval_interval,
                "Steps between evaluations; 0: only at the end")
      ->check(CLI::NonNegativeNumber);
  c->add_option("--checkpoint-interval", s->checkpoint_interval,
                "Steps between checkpoints; 0: none")
      ->check(CLI::NonNegativeNumber);
  c->add_option("--resume", s->resume, "Go on from a checkpoint folder, or 'last' of --output");
  c->add_flag("--activation-checkpointing", s->activation_checkpointing,
              "Recompute blocks instead of keeping activations");
  c->add_option("--sample-prompt", s->sample_prompt, "Generate from this before and after");
  c->add_option("--sample-tokens", s->sample_tokens, "Tokens of the sample")
      ->check(CLI::PositiveNumber);
  c->add_option("--report", s->report, "Write an HTML page with curves");
  c->add_option("--seed", s->seed, "Of data order, split, initial values, dropout");
  c->add_option("--threads", s->threads, "0: all cores")->check(CLI::NonNegativeNumber);
  c->add_flag("--json", s->json, "Print one JSON object at the end instead of text");
  c->callback([&run, s, c] { run = [s, c] { return finetune(*s, *c); }; });
}

}  // namespace cli
