#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <limits>
#include <optional>
#include <span>

#include "adapter_choice.hpp"
#include "graft/base/profile.hpp"
#include "graft/compose/calibrate.hpp"
#include "graft/compose/low_rank_pairs.hpp"
#include "graft/models/compute.hpp"
#include "graft/models/memory.hpp"
#include "graft/optim/lora_fa.hpp"
#include "graft/optim/riemannian.hpp"
#include "graft/optim/sgd.hpp"
#include "graft/train/trainer.hpp"
#include "labels.hpp"
#include "options.hpp"
#include "progress.hpp"
#include "report.hpp"
#include "task.hpp"

namespace cli {
namespace {

namespace fs = std::filesystem;
using graft::concat;
using graft::Index;
using graft::io::Json;

constexpr const char* kAdapter = "default";

struct FinetuneSettings {
  std::string output, scheduler = "cosine", report;
  TaskOptions task;
  AdapterOptions adapter;
  Index accumulation = 1, steps = 0, max_steps = 0, warmup_steps = 0, eval_interval = 0,
        checkpoint_interval = 100;
  double epochs = 1, learning_rate = 2e-4, final_ratio = 0, weight_decay = 0.01, beta1 = 0.9,
         beta2 = 0.999, eps = 1e-8, clip = 1, loraplus_ratio = 1, loraplus_embedding = 1e-6,
         time_limit = 0;
  Index calibration_batches = 8;
  std::string optimizer = "adamw", compute = "f32", storage = "f32";
  bool resume = false, overwrite = false, json = false, riemannian = false, profile = false,
       ignore_memory = false;
  double memory_limit = 0;
  int threads = 0;
};

/// Settings that a run may change when it goes on.
bool may_change(const std::string& key) {
  static const std::vector<std::string> kFree{"threads",       "checkpoint-interval",
                                              "eval-interval", "report",
                                              "model",         "data",
                                              "sample-prompt", "sample-tokens",
                                              "time-limit",    "activation-checkpointing",
                                              "held-out-data", "test-data",
                                              "check-merge",   "ignore-memory",
                                              "memory-limit",  "profile"};
  return std::find(kFree.begin(), kFree.end(), key) != kFree.end();
}
/// Those that change results where values are kept in bf16: what is recomputed begins with them.
bool recomputes(const std::string& key) {
  return key == "activation-checkpointing" || key == "memory-limit";
}

void expect_same_settings(const Json& before, const Json& now) {
  const bool rounded = now.value("activation-storage", "") == "bf16";
  for (const auto& [key, value] : now.items()) {
    if (may_change(key) && !(rounded && recomputes(key))) continue;
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

/// One call of `graft finetune`.
class Run {
 public:
  Run(const FinetuneSettings& settings, const CLI::App& command)
      : s_(settings), command_(command), output_(settings.output) {}

  int operator()() {
    try {
      return run();
    } catch (const graft::Error& error) {
      const auto hint = setting_hint(error.what(), choice_.config);
      if (hint.empty()) throw;
      throw graft::ValueError(error.what() + hint);
    }
  }

 private:
  int run() {
    if (!prepare_folder()) return 0;
    load();
    if (s_.resume) resume();
    catch_interrupts();
    if (trainer_->step() == 0) look_before();
    fs::create_directories(checkpoints());  // while it is there the run is not complete
    graft::io::write_file_atomically(
        output_ / "settings.json",
        graft::io::json_text(with_defaults_apart(command_, settings_json()), 2) + "\n");
    task_->save(output_);
    if (rewritten_ && trainer_->step() == 0) {
      // What graft convert needs to make a LoRA for the model as it was.
      adapters_->save(kAdapter, output_ / "initial");
    }
    fs::remove(output_ / "result.json");  // of a run before this one
    train();
    finish();
    return 0;
  }

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
    const auto& o = s_.task;
    for (const auto& [name, make] : tasks())
      if (name == o.name) task_ = make(o);
    auto& model = task_->model();
    choice_ = choose_adapter(s_.adapter, command_, last_name(o.model), model.sites());
    task_->complete(choice_.config);
    if (o.name != kMaskedLanguage) {
      if (given(command_, "mask-rate"))
        throw graft::ValueError("--mask-rate: goes with --task masked-language");
      choice_.unused.push_back("mask-rate");
    }
    if (o.name == "language" || o.name == kMaskedLanguage)
      for (const char* option : {"held-out-data", "test-data"})
        if (given(command_, option))
          throw graft::ValueError(concat("--", option,
                                         ": goes with labelled tasks; --held-out keeps "
                                         "a share of --data for evaluation"));
    if (o.activation_checkpointing) {
      auto* decoder = dynamic_cast<graft::models::CausalModel*>(&model);
      if (decoder == nullptr)
        throw graft::ValueError("--activation-checkpointing: decoders alone recompute blocks");
      decoder->recomputed_blocks = model.info().layers;
    }
    for (const auto& line : task_->lines()) tell(line);
    set_compute(model);

    adapters_.emplace(model.sites(), methods());
    adapters_->set_tokenizer([this](const std::string& text, const std::string& name) {
      return load_tokenizer(fs::is_directory(name) ? name : s_.task.model).encode(text);
    });
    const auto& set = add_adapter();
    make_optimizer();
    trainable_ = set.trainable_elements();
    total_ = describe_model(o.model).parameters + trainable_;
    const double share = 100.0 * static_cast<double>(trainable_) / static_cast<double>(total_);
    const auto bytes = static_cast<std::uintmax_t>(trainable_) * sizeof(float);
    tell(concat("adapter    ", set.info().name, " at ", set.parts().size(), " modules: ",
                trainable_, " trained of ", total_, " parameters (", format_number(share, "%.2f"),
                " %), ", mib(bytes), " and ", mib(3 * bytes), " for gradients and AdamW"));

    graft::TrainConfig config;
    config.steps = s_.steps;
    config.epochs = s_.epochs;
    config.batch_size = o.batch_size;
    config.accumulation = s_.accumulation;
    config.optimizer = adamw();
    config.lora_plus_ratio = s_.loraplus_ratio;
    config.lora_plus_embedding_rate = s_.loraplus_embedding;
    config.schedule = {graft::schedule_named(s_.scheduler), s_.warmup_steps, s_.final_ratio};
    config.max_gradient_norm = s_.clip;
    config.eval_interval = s_.eval_interval;
    config.checkpoint_interval = s_.checkpoint_interval;
    config.checkpoints = checkpoints();
    config.seed = o.seed;
    config.bf16_saved = s_.storage == "bf16";
    if (s_.max_steps > 0)
      config.steps = std::min(graft::steps_of(config, task_->rows().rows), s_.max_steps);
    trainer_.emplace(model, *adapters_, task_->rows(), task_->held_out(), config, optimizer_.get());
    tell(concat("memory     ", format_number(rss_mib(), "%.0f"), " MiB before training"));
    predict_memory();
  }

  /// Says what a step will take, recomputes blocks until that is within --memory-limit, and refuses
  /// a step that does not fit in the memory that is free.
  void predict_memory() {
    auto* model = dynamic_cast<graft::models::Llama*>(&task_->model());
    if (model == nullptr) {
      if (s_.memory_limit > 0)
        throw graft::ValueError(
            "--memory-limit: the memory of a step is known for LLaMA, Mistral, "
            "Qwen2 and Qwen3 only");
      return;
    }
    graft::models::StepSizes step;
    step.batch = s_.task.batch_size;
    const auto& rows = task_->rows();
    for (Index i = 0; i < rows.rows; ++i)
      step.tokens = std::max(step.tokens, rows.batch(std::span(&i, 1)).seq_len);
    step.trained = trainable_;
    const auto& set = adapters_->at(kAdapter);
    const Index blocks = model->config().layers;
    step.first_trained = graft::models::first_trained_block(set, model->sites());
    const Index trained = std::max<Index>(1, blocks - step.first_trained);
    if (const auto r = choice_.config.find("r"); r != choice_.config.end())
      if (const auto* rank = r->second.get_if<Index>())
        step.rank = (*rank * std::ssize(set.parts()) + trained - 1) / trained;
    step.bf16_saved = s_.storage == "bf16";
    // What the pool keeps ready comes on top.
    const auto need = [&](Index batch) {
      step.batch = batch;
      return 1.15 * graft::models::step_bytes(model->config(), step);
    };
    const auto mib_text = [](double bytes) { return format_number(bytes / 1048576, "%.0f MiB"); };
    const double limit =
        s_.memory_limit > 0 ? s_.memory_limit * 1048576 : std::numeric_limits<double>::infinity();
    // As a rule the input of the first trained block wants no gradient: it is not recomputed.
    const Index most = trained - 1;
    step.recomputed_blocks = std::min(model->recomputed_blocks, most);
    double whole = need(s_.task.batch_size), least = whole;
    if (whole > limit && model->stack.runs_blocks())
      throw graft::ValueError(concat("--memory-limit ", s_.memory_limit, ": training takes about ",
                                     mib_text(whole),
                                     ", and the adapter runs the blocks of the model itself, so "
                                     "that none is recomputed"));
    while (whole > limit && step.recomputed_blocks < most) {
      ++step.recomputed_blocks;
      whole = need(s_.task.batch_size);
      least = std::min(least, whole);
    }
    if (whole > limit)
      throw graft::ValueError(concat("--memory-limit ", s_.memory_limit,
                                     ": training on batches of ", s_.task.batch_size, " x ",
                                     step.tokens, " tokens takes about ", mib_text(least),
                                     " with its blocks recomputed"));
    model->recomputed_blocks = std::max(model->recomputed_blocks, step.recomputed_blocks);
    const double free = available_mib() * 1048576;
    tell(concat("memory     about ", mib_text(whole), " more in training, for batches of ",
                s_.task.batch_size, " x ", step.tokens, " tokens",
                step.recomputed_blocks > 0
                    ? concat("; ", step.recomputed_blocks, " of ", blocks, " blocks recomputed")
                    : ""));
    if (free <= 0 || whole <= free || s_.ignore_memory) return;
    Index fits = s_.task.batch_size - 1;
    while (fits > 0 && need(fits) > free) --fits;
    throw graft::ValueError(
        concat("--batch-size ", s_.task.batch_size, ": a step on rows of ", step.tokens,
               " tokens takes about ", mib_text(whole), ", and ", mib_text(free), " are free; ",
               fits > 0 ? concat("--batch-size ", fits, " fits") : "no batch fits",
               step.recomputed_blocks > 0 ? "" : ", --activation-checkpointing takes less",
               "; --ignore-memory starts all the same"));
  }

  void set_compute(graft::models::Model& model) const {
    const auto compute = graft::models::compute_named(s_.compute);
    const auto layers = graft::models::set_compute(model, compute);
    using graft::kernels::Compute;
    const bool automatic = s_.compute == "auto";
    std::string how = "f32";
    if (compute == Compute::bf16)
      how = concat("bf16 with f32 sums", automatic ? ", which this processor does fast" : "");
    else if (compute == Compute::f32_split)
      how = graft::kernels::splits_f32()
                ? "f32, each value split into two of bf16"
                : "f32: this processor has no AMX tiles, which f32-split is for";
    else if (automatic)
      how = "f32: this processor has no fast bf16 products";
    tell(concat("compute    frozen products of ", layers, " layers in ", how));
    tell(concat("kernels    ", graft::kernels::isa_name(graft::kernels::active_isa()), ", ",
                graft::ThreadPool::global().threads(), " threads"));
  }

  graft::AdamWConfig adamw() const {
    return {s_.learning_rate, s_.beta1, s_.beta2, s_.eps, s_.weight_decay};
  }

  /// Whether anything is trained beside modules that are trained whole.
  static bool trains_updates(const graft::AdapterSet<float>& set) {
    std::vector<std::string> whole;
    if (const auto it = set.given_config().find("modules_to_save"); it != set.given_config().end())
      if (const auto* list = it->second.get_if<graft::ConfigValue::List>())
        for (const auto& name : *list)
          if (const auto* text = name.get_if<std::string>()) whole.push_back(*text);
    const auto tensors = set.tensors();
    return std::any_of(tensors.begin(), tensors.end(), [&](const auto& keyed) {
      const auto& parameter = keyed.tensor.parameter;
      return parameter && parameter.trainable() && parameter.size() > 0 &&
             !graft::AdapterModel::inside(keyed.key, whole);
    });
  }

  /// Inits that look at data see the first rows of it.
  const graft::AdapterSet<float>& add_adapter() {
    const auto& sites = task_->model().sites();
    std::vector<std::weak_ptr<const void>> before;
    for (const auto* site : sites.linear) before.push_back(site->base().identity());
    graft::TorchGenerator generator(s_.task.seed);
    const auto init = choice_.config.find("init_lora_weights");
    const auto* word = init == choice_.config.end() ? nullptr : init->second.get_if<std::string>();
    const bool calibrated =
        word != nullptr && (*word == "eva" || *word == "corda" || *word == "lora_ga");
    if (!calibrated && given(command_, "calibration-batches"))
      throw graft::ValueError(
          "--calibration-batches: goes with --init eva, corda or lora_ga, which look at data");
    if (!calibrated) choice_.unused.push_back("calibration-batches");
    const auto batch_of = [&](Index i) {
      const auto& rows = task_->rows();
      std::vector<Index> picked;
      for (Index k = 0; k < s_.task.batch_size; ++k)
        picked.push_back((i * s_.task.batch_size + k) % rows.rows);
      return rows.batch(picked);
    };
    graft::CalibrationData<float> data;
    data.batches = s_.calibration_batches;
    data.run = [&](graft::Tape& tape, Index i) { return task_->model().loss(tape, batch_of(i)); };
    if (calibrated)
      tell(concat("init       ", *word, " from ", s_.calibration_batches, " batches of ",
                  s_.task.batch_size, " rows"));
    const auto& set = graft::add_calibrated(*adapters_, kAdapter, choice_.config, generator, data);
    if (!set.info().starts_empty.empty() && set.procedure() == nullptr && !trains_updates(set))
      throw graft::ValueError(concat("a new adapter of ", set.info().name,
                                     " trains nothing: ", set.info().starts_empty));
    for (std::size_t i = 0; i < before.size(); ++i) {
      const auto now = sites.linear[i]->base().identity();
      rewritten_ = rewritten_ || before[i].owner_before(now) || now.owner_before(before[i]);
    }
    return set;
  }

  /// Another optimiser than AdamW, or one with a preconditioner.
  void make_optimizer() {
    const auto& set = adapters_->at(kAdapter);
    const auto groups = graft::parameter_groups<float>(
        *adapters_, graft::LoRAPlusConfig{.learning_rate = s_.learning_rate,
                                          .ratio = s_.loraplus_ratio,
                                          .embedding_learning_rate = s_.loraplus_embedding,
                                          .weight_decay = s_.weight_decay});
    if (std::ranges::none_of(graft::named_parameters(set), [](const auto& p) {
          return graft::is_lora_b(p) || p.name.find("lora_embedding_B") != p.name.npos;
        })) {
      if (given(command_, "loraplus-ratio"))
        throw graft::ValueError(concat("--loraplus-ratio: ", set.info().name, " has no factor B"));
      choice_.unused.push_back("loraplus-ratio");
    }
    if (s_.loraplus_ratio == 1) {
      if (given(command_, "loraplus-embedding-rate"))
        throw graft::ValueError("--loraplus-embedding-rate: needs a --loraplus-ratio other than 1");
      choice_.unused.push_back("loraplus-embedding-rate");
    }
    const auto pairs = [&](const char* option) {
      auto list = graft::low_rank_pairs(set);
      if (list.empty())
        throw graft::ValueError(
            concat(option, ": ", set.info().name, " has no low-rank factors A and B"));
      return list;
    };
    if (s_.optimizer == "lora-fa") {
      if (s_.riemannian || given(command_, "loraplus-ratio"))
        throw graft::ValueError(
            "--optimizer lora-fa: trains B alone; --riemannian and --loraplus-ratio are for both "
            "factors");
      optimizer_ = std::make_unique<graft::LoRAFA>(
          pairs("--optimizer lora-fa"),
          graft::LoRAFAConfig{s_.learning_rate, s_.beta1, s_.beta2, s_.eps, s_.weight_decay},
          set.parameters());
      return;
    }
    if (s_.optimizer == "sgd")
      optimizer_ = std::make_unique<graft::Sgd>(
          groups,
          graft::SgdConfig{.learning_rate = s_.learning_rate, .weight_decay = s_.weight_decay});
    else if (s_.riemannian)
      optimizer_ = std::make_unique<graft::AdamW>(groups, adamw());
    if (s_.riemannian)
      optimizer_->before_step = [p = graft::RiemannianPreconditioner(pairs("--riemannian"))] {
        p.apply();
      };
  }

  Json settings_json() const {
    Json settings = settings_of(command_);
    for (const auto& name : choice_.unused) settings.erase(name);
    return settings;
  }

  void resume() {
    expect_same_settings(with_defaults_among(graft::io::read_json(output_ / "settings.json")),
                         settings_json());
    const auto all = graft::list_checkpoints(checkpoints());
    if (all.empty()) return tell("the run had no checkpoint yet: it begins anew");
    const Json note = trainer_->resume(all.back().second);
    const graft::io::JsonView view(note, (all.back().second / "state.json").string());
    task_->restore(view);
    seconds_ = view.number_or("seconds", 0);
    tell(concat("going on after step ", trainer_->step(), " of ", trainer_->steps()));
  }

  void look_before() {
    if (!s_.resume) fs::remove_all(checkpoints());
    const auto off = adapters_->disabled();
    graft::TrainCallbacks callbacks;
    callbacks.stop = was_interrupted;
    if (const auto e = trainer_->evaluate(callbacks))
      tell(concat("before     ", task_->quality(*e)));
    if (const auto line = task_->look_before(was_interrupted); !line.empty()) tell(line);
    if (was_interrupted())
      throw Exit{130, "interrupted before the first step; nothing was written"};
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
    // The first step warms memory up: the second one is measured.
    std::optional<graft::Profile::Recording> recording;
    const auto first_step = trainer_->step() + 1;
    callbacks.on_step = [&](const graft::StepReport& r) {
      recording.reset();
      if (s_.profile && r.step == first_step) recording.emplace(&profile_);
      if (progress) progress->step(r);
    };
    callbacks.on_evaluation = [&](const graft::EvaluationReport& e) {
      if (progress)
        progress->line(concat("after ", e.step,
                              e.step == 1 ? " step: " : " steps: ", task_->quality(e.result)));
    };
    callbacks.note = [&] {
      Json note{{"seconds", seconds_ + seconds()}};
      task_->keep(note);
      return note;
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
    if (was_interrupted() && !trainer_->done())
      throw Exit{130, concat("interrupted after step ", trainer_->step(), " of ", trainer_->steps(),
                             ", which is saved; go on with: graft finetune "
                             "--resume --output ",
                             s_.output)};
  }

  void finish() {
    const auto& history = trainer_->history();
    if (history.evaluations.empty() || history.evaluations.back().step != trainer_->step())
      trainer_->evaluate();
    task_->look_after(*adapters_, was_interrupted);
    double time = 0, tokens = 0;
    for (const auto& r : history.steps) {
      time += r.seconds;
      tokens += r.tokens_per_second * r.seconds;
    }
    rate_ = time > 0 ? tokens / time : 0;
    peak_ = peak_rss_mib();
    if (!s_.report.empty()) write_html();
    if (!profile_.events().empty()) {
      const auto file = output_ / "profile.json";
      graft::io::write_file_atomically(file, profile_.chrome_trace());
      tell(concat("one step, kernel by kernel (also in ", file.string(),
                  ", for chrome://tracing):\n", profile_.table()));
    }
    adapters_->save(kAdapter, output_);
    Json result = result_json();
    result["step_ms"] = result["step_loss"] = Json::array();
    for (const auto& r : history.steps) {
      result["step_ms"].push_back(1000 * r.seconds);
      result["step_loss"].push_back(r.loss);
    }
    graft::io::write_file_atomically(output_ / "result.json", graft::io::json_text(result) + "\n");
    if (trainer_->done()) fs::remove_all(checkpoints());
    if (s_.json) {
      print_json(result_json());
    } else {
      print_result();
    }
  }

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
    task_->add_results(object, trainer_->history());
    return object;
  }

  void print_result() const {
    if (!trainer_->done())
      say(concat("stopped at the time limit after step ", trainer_->step(), " of ",
                 trainer_->steps(), "; --resume goes on"));
    say(task_->result_text(trainer_->history()));
    say(concat("time       ", format_number(seconds_, "%.1f"), " s for ", trainer_->step(),
               " steps, ", format_number(rate_, "%.0f"), " tokens/s"));
    say(concat("trained    ", trainable_, " of ", total_, " parameters"));
    say(concat("memory     ", format_number(peak_, "%.0f"), " MiB at most"));
    say(concat("adapter    ", output_.string(), " (",
               mib(bytes_of(output_ / "adapter_model.safetensors")), ")"));
    if (rewritten_)
      say(
          concat("note       the init changed frozen weights, so the adapter is for the changed "
                 "model; a LoRA for the model as it was: graft convert --input ",
                 output_.string(), " --initial ", (output_ / "initial").string(), " --output …"));
    if (!s_.report.empty()) say("report     " + s_.report);
  }

  void write_html() const {
    const auto& history = trainer_->history();
    Report report;
    report.title = concat("Fine-tuning ", last_name(s_.task.model), " with ",
                          adapters_->at(kAdapter).info().name);
    task_->add_results(report, history);
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

  const FinetuneSettings& s_;
  const CLI::App& command_;
  fs::path output_;
  AdapterChoice choice_;
  std::unique_ptr<Task> task_;
  std::optional<graft::AdapterModel> adapters_;
  std::unique_ptr<graft::Optimizer> optimizer_;  ///< null: the trainer's AdamW
  std::optional<graft::Trainer> trainer_;
  bool rewritten_ = false;  ///< the init changed frozen weights
  Index trainable_ = 0, total_ = 0;
  double seconds_ = 0;  ///< of training, earlier parts of the run included
  double rate_ = 0, peak_ = 0;
  graft::Profile profile_;
};

void add_training_options(CLI::App& command, FinetuneSettings& s) {
  const auto add = [&](const char* name, auto& value, const char* help) {
    return command.add_option(name, value, help)->group("Training");
  };
  const auto positive = CLI::PositiveNumber;
  const auto not_negative = CLI::NonNegativeNumber;
  add("--steps", s.steps, "Optimiser steps; 0: by --epochs")->check(not_negative);
  add("--epochs", s.epochs, "Passes over the data")->check(positive);
  add("--max-steps", s.max_steps, "At most so many steps, whatever --epochs asks for; 0: no limit")
      ->check(not_negative);
  add("--batch-size", s.task.batch_size, "Rows in a batch")->check(positive);
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
  add("--optimizer", s.optimizer, "adamw, sgd, or lora-fa (B alone, by LoRA-FA's Adam)")
      ->check(CLI::IsMember({"adamw", "sgd", "lora-fa"}));
  command
      .add_flag("--riemannian", s.riemannian,
                "Precondition the gradients of low-rank factors (Riemannian)")
      ->group("Training");
  add("--calibration-batches", s.calibration_batches,
      "Batches that --init eva, corda and lora_ga look at")
      ->check(positive);
  add("--loraplus-ratio", s.loraplus_ratio,
      "Learning rate of B, biases and magnitudes over that of A (LoRA+)")
      ->check(positive);
  add("--loraplus-embedding-rate", s.loraplus_embedding,
      "Learning rate of LoRA on embeddings, with --loraplus-ratio")
      ->check(positive);
  add("--max-grad-norm", s.clip, "Clipping by the global norm; 0: none")->check(not_negative);
  add("--held-out", s.task.held_out, "Share of the rows kept for evaluation")
      ->check(CLI::Range(0.0, 0.99));
  add("--mask-rate", s.task.mask_rate,
      "Task masked-language: share of the tokens that are to be guessed (of them 80 % become the "
      "mask token, 10 % a random one)");
  add("--eval-interval", s.eval_interval, "Steps between evaluations; 0: before and after only")
      ->check(not_negative);
  add("--checkpoint-interval", s.checkpoint_interval,
      "Steps between checkpoints; 0: only when interrupted")
      ->check(not_negative);
  add("--time-limit", s.time_limit, "Minutes of training after which the run stops; 0: none")
      ->check(not_negative);
  command
      .add_flag("--activation-checkpointing", s.task.activation_checkpointing,
                "Recompute all blocks instead of keeping activations")
      ->group("Training");
  add("--memory-limit", s.memory_limit,
      "MiB that training may take beside the model: as many blocks are recomputed as that needs; "
      "0: no limit")
      ->check(not_negative);
  add("--activation-storage", s.storage,
      "What the backward pass needs is kept in f32, or rounded to bf16 in half the memory")
      ->check(CLI::IsMember({"f32", "bf16"}));
  add("--compute", s.compute,
      "Products with frozen weights: f32, bf16 (rounded factors, f32 sums), f32-split (about f32, "
      "by AMX tiles; f32 without them), or auto: bf16 where the processor has it fast")
      ->check(CLI::IsMember({"auto", "f32", "bf16", "f32-split"}));
  add("--seed", s.task.seed, "Of data order, split, initial values, dropout, sample");
  add("--threads", s.threads, "0: all cores")->check(not_negative);
}

}  // namespace

void add_finetune(CLI::App& app, Command& run) {
  auto* c = app.add_subcommand("finetune", "Train an adapter: model + texts -> adapter folder");
  auto s = std::make_shared<FinetuneSettings>();
  auto unused = std::make_shared<std::string>();
  c->option_defaults()->always_capture_default();
  c->add_option("--config", *unused, "JSON file with any of these options; the command line wins");
  c->add_option("--model", s->task.model, "GGUF file or Hugging Face folder")->required();
  c->add_option(
       "--task", s->task.name,
       "language (next token), masked-language (hidden tokens, encoders; plain text, or a "
       "column of CSV, TSV, JSON lines), classification or regression (of texts: CSV, TSV, JSON "
       "lines), token-classification (JSON lines with lists tokens and tags, or CoNLL "
       "columns), image-classification (CSV or TSV with a column a pixel)")
      ->check(CLI::IsMember(task_names()));
  add_data_options(*c, s->task.data);
  c->add_option("--held-out-data", s->task.labelled.held_out_data,
                "Labelled tasks: file of rows for evaluation, in place of --held-out");
  c->add_option("--test-data", s->task.labelled.test_data,
                "Labelled tasks: file of rows for a last evaluation");
  add_column_options(*c, s->task.labelled);
  c->add_option("--output", s->output, "Folder for the adapter, its settings and checkpoints")
      ->required();
  c->add_flag("--resume", s->resume,
              "Go on with the run in --output, with its settings, from its last checkpoint");
  c->add_flag("--overwrite", s->overwrite, "Drop an incomplete run in --output");
  add_adapter_options(*c, s->adapter);
  add_training_options(*c, *s);
  c->add_option("--sample-prompt", s->task.sample_prompt,
                "Generate from this before and after; masked-language: guess its mask tokens")
      ->group("Output");
  c->add_option("--sample-tokens", s->task.sample_tokens, "Tokens of the sample")
      ->check(CLI::PositiveNumber)
      ->group("Output");
  c->add_option("--report", s->report, "Write an HTML page with curves")->group("Output");
  c->add_flag("--json", s->json, "Print one JSON object at the end instead of text")
      ->group("Output");
  c->add_flag("--ignore-memory", s->ignore_memory,
              "Start also if more memory is predicted to be needed than is free")
      ->group("Training");
  c->add_flag("--profile", s->profile,
              "Measure one step: a table at the end, and a trace in OUTPUT/profile.json")
      ->group("Output");
  c->add_flag("--check-merge", s->task.check_merge,
              "Compare the outputs with those of merged weights at the end")
      ->group("Output");
  c->callback([&run, s, unused, c] { run = [s, unused, c] { return Run(*s, *c)(); }; });
}

}  // namespace cli
