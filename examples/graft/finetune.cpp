#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <csignal>
#include <optional>

#include "adapter_choice.hpp"
#include "graft/train/generate.hpp"
#include "graft/train/trainer.hpp"
#include "options.hpp"
#include "progress.hpp"
#include "report.hpp"
#include "session.hpp"

namespace cli {
namespace {

namespace fs = std::filesystem;
using graft::concat;
using graft::Index;
using graft::io::Json;

constexpr const char* kAdapter = "default";

std::atomic<bool> interrupted{false};
extern "C" void on_interrupt(int signal) {
  interrupted = true;
  std::signal(signal, SIG_DFL);  // the second time it ends the program at once
}
bool was_interrupted() { return interrupted.load(); }

struct Settings {
  std::string model, output, scheduler = "cosine", report, sample_prompt;
  AdapterOptions adapter;
  DataOptions data;
  Index batch_size = 4, accumulation = 1, steps = 0, warmup_steps = 0, eval_interval = 0,
        checkpoint_interval = 100, sample_tokens = 48;
  double epochs = 1, learning_rate = 2e-4, final_ratio = 0, weight_decay = 0.01, beta1 = 0.9,
         beta2 = 0.999, eps = 1e-8, clip = 1, held_out = 0.05, loraplus_ratio = 1, time_limit = 0;
  bool activation_checkpointing = false, resume = false, overwrite = false, json = false;
  std::uint64_t seed = 0;
  int threads = 0;
};

/// Settings that a run may change when it goes on.
bool may_change(const std::string& key) {
  static const std::vector<std::string> kFree{
      "threads", "checkpoint-interval", "eval-interval", "report",     "model",
      "data",    "sample-prompt",       "sample-tokens", "time-limit", "activation-checkpointing"};
  return std::find(kFree.begin(), kFree.end(), key) != kFree.end();
}

void expect_same_settings(const Json& before, const Json& now) {
  for (const auto& [key, value] : now.items()) {
    if (may_change(key)) continue;
    const Json then = before.contains(key) ? before.at(key) : Json();
    const bool same = then.is_number() && value.is_number()
                          ? then.get<double>() == value.get<double>()
                          : then == value;
    if (!same && !(then.is_null() && value == false))
      throw graft::ValueError(concat("--", key, ": the run was begun with ",
                                     then.is_null() ? "the default" : then.dump(),
                                     ", it cannot go on with ", value.dump()));
  }
}

std::string quality(const graft::Evaluation& e) {
  return concat("held-out perplexity ", format_number(e.perplexity, "%.3f"), ", token accuracy ",
                format_number(100 * e.accuracy, "%.1f"), " %");
}

/// One call of `graft finetune`.
class Run {
 public:
  Run(const Settings& settings, const CLI::App& command)
      : s_(settings), command_(command), output_(settings.output) {}

  int operator()() {
    if (!prepare_folder()) return 0;
    load();
    if (s_.resume) resume();
    std::signal(SIGINT, on_interrupt);
    std::signal(SIGTERM, on_interrupt);
    if (trainer_->step() == 0) look_before();
    fs::create_directories(checkpoints());  // while it is there the run is not complete
    graft::io::write_file_atomically(output_ / "settings.json",
                                     graft::io::json_text(settings_json(), 2) + "\n");
    train();
    finish();
    return 0;
  }

 private:
  fs::path checkpoints() const { return output_ / "checkpoints"; }
  void tell(const std::string& text) const {
    if (!s_.json) say(text);
  }

  /// False if there is nothing left to do.
  bool prepare_folder() const {
    if (fs::exists(output_) && !fs::is_directory(output_))
      throw graft::IoError(concat(s_.output, ": exists and is no folder"));
    if (s_.resume) {
      if (fs::is_directory(checkpoints())) return true;
      tell(concat("the run in ", s_.output, " is complete"));
      return false;
    }
    if (graft::list_checkpoints(checkpoints()).empty()) return true;
    if (!s_.overwrite)
      throw graft::ValueError(concat("--output: ", s_.output,
                                     " holds a run that is not complete; --resume goes on with "
                                     "it, --overwrite drops it"));
    return true;
  }

  void load() {
    set_threads(s_.threads);
    model_ = load_causal(s_.model);
    choice_ = choose_adapter(s_.adapter, command_, last_name(s_.model), model_->sites());
    model_->checkpoint_blocks = s_.activation_checkpointing;
    tokenizer_ = load_tokenizer(s_.model);
    const auto file = describe_model(s_.model);
    tell("model      " + model_line(s_.model, model_->info(), file));

    auto data = load_data(s_.data, *tokenizer_);
    const auto split =
        graft::text::split_held_out(static_cast<Index>(data.examples.size()), s_.held_out, s_.seed);
    tell(concat("data       ", data_line(s_.data, data), ", ", split.held_out.size(), " held out"));
    const auto all = graft::text_dataset<float>(std::move(data.examples), tokenizer_->pad_id());

    adapters_.emplace(model_->sites(), methods());
    adapters_->set_tokenizer([this](const std::string& text, const std::string& name) {
      return fs::is_directory(name) ? load_tokenizer(name).encode(text) : tokenizer_->encode(text);
    });
    graft::TorchGenerator generator(s_.seed);
    const auto& set = adapters_->add(kAdapter, choice_.config, generator);
    trainable_ = set.trainable_elements();
    total_ = file.parameters + trainable_;
    const double share = 100.0 * static_cast<double>(trainable_) / static_cast<double>(total_);
    const auto bytes = static_cast<std::uintmax_t>(trainable_) * sizeof(float);
    tell(concat("adapter    ", set.info().name, " at ", set.parts().size(), " modules: ",
                trainable_, " trained of ", total_, " parameters (", format_number(share, "%.2f"),
                " %), ", mib(bytes), " and ", mib(3 * bytes), " for gradients and AdamW"));

    graft::TrainConfig config;
    config.steps = s_.steps;
    config.epochs = s_.epochs;
    config.batch_size = s_.batch_size;
    config.accumulation = s_.accumulation;
    config.optimizer = {s_.learning_rate, s_.beta1, s_.beta2, s_.eps, s_.weight_decay};
    config.lora_plus_ratio = s_.loraplus_ratio;
    config.schedule = {graft::schedule_named(s_.scheduler), s_.warmup_steps, s_.final_ratio};
    config.max_gradient_norm = s_.clip;
    config.eval_interval = s_.eval_interval;
    config.checkpoint_interval = s_.checkpoint_interval;
    config.checkpoints = checkpoints();
    config.seed = s_.seed;
    trainer_.emplace(*model_, *adapters_, graft::subset(all, split.train),
                     graft::subset(all, split.held_out), config);
    tell(concat("memory     ", format_number(rss_mib(), "%.0f"), " MiB before training"));
  }

  Json settings_json() const {
    Json settings = settings_of(command_);
    for (const auto& name : choice_.unused) settings.erase(name);
    return settings;
  }

  void resume() {
    expect_same_settings(graft::io::read_json(output_ / "settings.json"), settings_json());
    const auto all = graft::list_checkpoints(checkpoints());
    if (all.empty()) return tell("the run had no checkpoint yet: it begins anew");
    const Json note = trainer_->resume(all.back().second);
    const graft::io::JsonView view(note, (all.back().second / "state.json").string());
    sample_before_ = view.string_or("sample", "");
    seconds_ = view.number_or("seconds", 0);
    tell(concat("going on after step ", trainer_->step(), " of ", trainer_->steps()));
  }

  std::string sample() {
    if (s_.sample_prompt.empty()) return "";
    graft::GenerateConfig config;
    config.max_tokens = s_.sample_tokens;
    config.temperature = 0.7;
    config.top_p = 0.95;
    config.seed = s_.seed;
    config.end_ids = tokenizer_->end_ids();
    const auto ids = graft::generate(*model_, tokenizer_->encode(s_.sample_prompt), config,
                                     [](std::int32_t) { return !was_interrupted(); });
    return tokenizer_->decode(ids, true);
  }

  void look_before() {
    if (!s_.resume) fs::remove_all(checkpoints());
    const auto off = adapters_->disabled();
    graft::TrainCallbacks callbacks;
    callbacks.stop = was_interrupted;
    if (const auto e = trainer_->evaluate(callbacks)) tell(concat("before     ", quality(*e)));
    sample_before_ = sample();
    if (!s_.sample_prompt.empty()) tell(concat("sample     ", s_.sample_prompt, sample_before_));
    if (interrupted) throw Exit{130, "interrupted before the first step; nothing was written"};
  }

  void train() {
    using Clock = std::chrono::steady_clock;
    const auto begin = Clock::now();
    const auto seconds = [&] {
      return std::chrono::duration<double>(Clock::now() - begin).count();
    };
    std::optional<Progress> progress;
    if (!s_.json) progress.emplace(trainer_->steps(), trainer_->step());
    graft::TrainCallbacks callbacks;
    callbacks.on_step = [&](const graft::StepReport& r) {
      if (progress) progress->step(r);
    };
    callbacks.on_evaluation = [&](const graft::EvaluationReport& e) {
      if (progress)
        progress->line(
            concat("after ", e.step, e.step == 1 ? " step: " : " steps: ", quality(e.result)));
    };
    callbacks.note = [&] {
      return Json{{"sample", sample_before_}, {"seconds", seconds_ + seconds()}};
    };
    callbacks.stop = [&] {
      return was_interrupted() || (s_.time_limit > 0 && seconds() > 60 * s_.time_limit);
    };
    try {
      trainer_->run(callbacks);
    } catch (const graft::NotFiniteError& error) {
      if (progress) progress->finish();
      const auto all = graft::list_checkpoints(checkpoints());
      throw Exit{1, concat(error.what(), all.empty() ? "; there is no checkpoint yet"
                                                     : "; the last good checkpoint is " +
                                                           all.back().second.string())};
    }
    if (progress) progress->finish();
    seconds_ += seconds();
    if (interrupted && !trainer_->done())
      throw Exit{130, concat("interrupted after step ", trainer_->step(), " of ", trainer_->steps(),
                             ", which is saved; go on with: graft finetune "
                             "--resume --output ",
                             s_.output)};
  }

  void finish() {
    const auto& history = trainer_->history();
    if (history.evaluations.empty() || history.evaluations.back().step != trainer_->step())
      trainer_->evaluate();
    sample_after_ = sample();
    double time = 0, tokens = 0;
    for (const auto& r : history.steps) {
      time += r.seconds;
      tokens += r.tokens_per_second * r.seconds;
    }
    rate_ = time > 0 ? tokens / time : 0;
    peak_ = peak_rss_mib();
    if (!s_.report.empty()) write_html();
    adapters_->save(kAdapter, output_);
    if (trainer_->done()) fs::remove_all(checkpoints());
    if (s_.json) {
      print_json(result_json());
    } else {
      print_result();
    }
  }

  bool evaluated() const { return !trainer_->history().evaluations.empty(); }
  graft::Evaluation first() const { return trainer_->history().evaluations.front().result; }
  graft::Evaluation last() const { return trainer_->history().evaluations.back().result; }

  Json result_json() const {
    const auto& steps = trainer_->history().steps;
    Json object{{"steps", trainer_->step()},
                {"complete", trainer_->done()},
                {"seconds", seconds_},
                {"tokens_per_second", rate_},
                {"trainable", trainable_},
                {"parameters", total_},
                {"loss_first", steps.empty() ? 0 : steps.front().loss},
                {"loss_last", steps.empty() ? 0 : steps.back().loss},
                {"peak_rss_mib", peak_},
                {"adapter", output_.string()}};
    if (evaluated()) {
      object["perplexity_before"] = first().perplexity;
      object["perplexity_after"] = last().perplexity;
      object["accuracy_before"] = first().accuracy;
      object["accuracy_after"] = last().accuracy;
    }
    if (!s_.sample_prompt.empty()) {
      object["sample_before"] = sample_before_;
      object["sample_after"] = sample_after_;
    }
    return object;
  }

  void print_result() const {
    if (!trainer_->done())
      say(concat("stopped at the time limit after step ", trainer_->step(), " of ",
                 trainer_->steps(), "; --resume goes on"));
    if (evaluated())
      say(concat("\nheld-out perplexity  ", format_number(first().perplexity, "%.3f"), " -> ",
                 format_number(last().perplexity, "%.3f"), ", token accuracy ",
                 format_number(100 * first().accuracy, "%.1f"), " -> ",
                 format_number(100 * last().accuracy, "%.1f"), " %"));
    if (!s_.sample_prompt.empty()) {
      say(concat("\nsample before:\n", s_.sample_prompt, sample_before_));
      say(concat("\nsample after:\n", s_.sample_prompt, sample_after_, "\n"));
    }
    say(concat("time       ", format_number(seconds_, "%.1f"), " s for ", trainer_->step(),
               " steps, ", format_number(rate_, "%.0f"), " tokens/s"));
    say(concat("trained    ", trainable_, " of ", total_, " parameters"));
    say(concat("memory     ", format_number(peak_, "%.0f"), " MiB at most"));
    say(concat("adapter    ", output_.string(), " (",
               mib(bytes_of(output_ / "adapter_model.safetensors")), ")"));
    if (!s_.report.empty()) say("report     " + s_.report);
  }

  void write_html() const {
    const auto& history = trainer_->history();
    Report report;
    report.title =
        concat("Fine-tuning ", last_name(s_.model), " with ", adapters_->at(kAdapter).info().name);
    if (evaluated())
      report.results = {
          {"held-out perplexity", concat(format_number(first().perplexity, "%.3f"), " → ",
                                         format_number(last().perplexity, "%.3f"))},
          {"token accuracy", concat(format_number(100 * first().accuracy, "%.2f"), " % → ",
                                    format_number(100 * last().accuracy, "%.2f"), " %")}};
    const auto add = [&](const char* name, const std::string& value) {
      report.results.emplace_back(name, value);
    };
    add("steps", concat(trainer_->step(), " of ", trainer_->steps()));
    add("time", format_number(seconds_, "%.1f s"));
    add("tokens per second", format_number(rate_, "%.0f"));
    add("trained parameters", concat(trainable_, " of ", total_));
    add("peak memory", format_number(peak_, "%.0f MiB"));
    const Json settings = settings_json();
    for (const auto& [key, value] : settings.items())
      report.settings.emplace_back(key,
                                   value.is_string() ? value.get<std::string>() : value.dump());
    if (!s_.sample_prompt.empty())
      report.samples = {{"before", s_.sample_prompt + sample_before_},
                        {"after", s_.sample_prompt + sample_after_}};
    Curve losses{"training", {}}, held_out{"held out", {}}, speed{"tokens per second", {}},
        rates{"learning rate", {}};
    for (const auto& r : history.steps) {
      losses.points.emplace_back(r.step, r.loss);
      speed.points.emplace_back(r.step, r.tokens_per_second);
      rates.points.emplace_back(r.step, r.learning_rate);
    }
    for (const auto& e : history.evaluations) held_out.points.emplace_back(e.step, e.result.loss);
    report.figures = {{"Loss", "loss", {losses, held_out}},
                      {"Throughput", "tokens per second", {speed}},
                      {"Learning rate", "learning rate", {rates}}};
    write_report(s_.report, report);
  }

  const Settings& s_;
  const CLI::App& command_;
  fs::path output_;
  AdapterChoice choice_;
  std::unique_ptr<graft::models::CausalModel> model_;
  std::optional<graft::text::Tokenizer> tokenizer_;
  std::optional<graft::AdapterModel> adapters_;
  std::optional<graft::Trainer> trainer_;
  Index trainable_ = 0, total_ = 0;
  std::string sample_before_, sample_after_;
  double seconds_ = 0;  ///< of training, earlier parts of the run included
  double rate_ = 0, peak_ = 0;
};

void add_training_options(CLI::App& command, Settings& s) {
  const auto add = [&](const char* name, auto& value, const char* help) {
    return command.add_option(name, value, help)->group("Training");
  };
  const auto positive = CLI::PositiveNumber;
  const auto not_negative = CLI::NonNegativeNumber;
  add("--steps", s.steps, "Optimiser steps; 0: by --epochs")->check(not_negative);
  add("--epochs", s.epochs, "Passes over the data")->check(positive);
  add("--batch-size", s.batch_size, "Rows in a batch")->check(positive);
  add("--gradient-accumulation", s.accumulation, "Batches in a step")->check(positive);
  add("--learning-rate", s.learning_rate, "Peak learning rate")->check(positive);
  add("--scheduler", s.scheduler, "constant, linear or cosine")
      ->check(CLI::IsMember({"constant", "linear", "cosine"}));
  add("--warmup-steps", s.warmup_steps, "Steps of rising learning rate")->check(not_negative);
  add("--final-learning-rate-ratio", s.final_ratio,
      "Share of the peak that linear and cosine end at")
      ->check(CLI::Range(0.0, 1.0));
  add("--weight-decay", s.weight_decay, "AdamW")->check(not_negative);
  add("--beta1", s.beta1, "AdamW")->check(CLI::Range(0.0, 0.99999));
  add("--beta2", s.beta2, "AdamW")->check(CLI::Range(0.0, 0.999999));
  add("--eps", s.eps, "AdamW")->check(positive);
  add("--loraplus-ratio", s.loraplus_ratio, "Learning rate of B over that of A (LoRA+)")
      ->check(positive);
  add("--max-grad-norm", s.clip, "Clipping by the global norm; 0: none")->check(not_negative);
  add("--held-out", s.held_out, "Share of the rows kept for evaluation")
      ->check(CLI::Range(0.0, 0.99));
  add("--eval-interval", s.eval_interval, "Steps between evaluations; 0: before and after only")
      ->check(not_negative);
  add("--checkpoint-interval", s.checkpoint_interval,
      "Steps between checkpoints; 0: only when interrupted")
      ->check(not_negative);
  add("--time-limit", s.time_limit, "Minutes of training after which the run stops; 0: none")
      ->check(not_negative);
  command
      .add_flag("--activation-checkpointing", s.activation_checkpointing,
                "Recompute blocks instead of keeping activations")
      ->group("Training");
  add("--seed", s.seed, "Of data order, split, initial values, dropout, sample");
  add("--threads", s.threads, "0: all cores")->check(not_negative);
}

}  // namespace

void add_finetune(CLI::App& app, Command& run) {
  auto* c = app.add_subcommand("finetune",
                               "Train an adapter: model + text or JSON lines -> adapter folder");
  auto s = std::make_shared<Settings>();
  auto unused = std::make_shared<std::string>();
  c->option_defaults()->always_capture_default();
  c->add_option("--config", *unused, "JSON file with any of these options; the command line wins");
  c->add_option("--model", s->model, "GGUF file or Hugging Face folder")->required();
  add_data_options(*c, s->data);
  c->add_option("--output", s->output, "Folder for the adapter, its settings and checkpoints")
      ->required();
  c->add_flag("--resume", s->resume,
              "Go on with the run in --output, with its settings, from its last checkpoint");
  c->add_flag("--overwrite", s->overwrite, "Drop an incomplete run in --output");
  add_adapter_options(*c, s->adapter);
  add_training_options(*c, *s);
  c->add_option("--sample-prompt", s->sample_prompt, "Generate from this before and after")
      ->group("Output");
  c->add_option("--sample-tokens", s->sample_tokens, "Tokens of the sample")
      ->check(CLI::PositiveNumber)
      ->group("Output");
  c->add_option("--report", s->report, "Write an HTML page with curves")->group("Output");
  c->add_flag("--json", s->json, "Print one JSON object at the end instead of text")
      ->group("Output");
  c->callback([&run, s, unused, c] { run = [s, unused, c] { return Run(*s, *c)(); }; });
}

}  // namespace cli
