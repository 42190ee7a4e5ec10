#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "graft/compose/adapter_model.hpp"
#include "graft/compose/low_rank_pairs.hpp"
#include "graft/models/model.hpp"
#include "graft/optim/adamw.hpp"
#include "graft/optim/clip.hpp"
#include "graft/optim/learning_rate.hpp"
#include "graft/optim/lora_plus.hpp"
#include "graft/text/sampling.hpp"
#include "graft/train/checkpoint.hpp"
#include "graft/train/dataset.hpp"
#include "graft/train/evaluate.hpp"
#include "graft/train/metrics.hpp"
#include "graft/train/not_finite.hpp"

namespace graft::inline v0_1 {

/// Settings of a training run. One step takes batch_size · accumulation rows.
struct TrainConfig {
  Index steps = 0;    ///< 0: as many as `epochs` make
  double epochs = 1;  ///< passes over the rows, rounded up to whole steps
  Index batch_size = 4;
  Index accumulation =
      1;  ///< batches a step; each counts by its number of predictions, as if they were one batch
  AdamWConfig optimizer = {.learning_rate = 2e-4};
  double lora_plus_ratio = 1;  ///< learning rates as lora_plus_groups has them; 1: one for all
  double lora_plus_embedding_rate = 1e-6;  ///< with such a ratio, of LoRA on embeddings
  LearningRateConfig schedule = {};
  double max_gradient_norm = 1;            ///< 0: no clipping
  Index eval_interval = 0;                 ///< steps between evaluations; 0: at the end only
  Index checkpoint_interval = 0;           ///< steps between checkpoints; 0: only when stopped
  std::filesystem::path checkpoints = {};  ///< folder for them; empty: none are written
  std::size_t keep_checkpoints = 2;
  std::uint64_t seed = 0;   ///< of the order of rows and of dropout
  bool bf16_saved = false;  ///< BasicTape::Options::bf16_saved, for less memory
};

/// Steps of a run over so many rows.
inline Index steps_of(const TrainConfig& config, Index rows) {
  if (config.steps > 0) return config.steps;
  const auto per_step = static_cast<double>(config.batch_size * config.accumulation);
  return std::max<Index>(
      1,
      static_cast<Index>(std::ceil(config.epochs * static_cast<double>(rows) / per_step - 1e-9)));
}

struct TrainCallbacks {
  std::function<void(const StepReport&)> on_step = {};
  std::function<void(const EvaluationReport&)> on_evaluation = {};
  std::function<void(Index step, const std::filesystem::path&)> on_checkpoint = {};
  /// What a checkpoint keeps for the program.
  std::function<io::Json()> note = {};
  /// Asked after each step and during evaluations: true ends the run after the step, with a
  /// checkpoint.
  std::function<bool()> stop = {};
};

/// Groups for an optimiser from the trained tensors of the active adapters: all in one, or with a
/// ratio other than one those of LoRA+ (lora_plus_groups).
template <std::floating_point T>
std::vector<BasicParameterGroup<T>> parameter_groups(const BasicAdapterModel<T>& adapters,
                                                     const LoRAPlusConfig& lora_plus = {
                                                         .ratio = 1}) {
  std::vector<BasicNamedParameter<T>> all;
  for (const auto& name : adapters.active()) {
    auto some = named_parameters(adapters.at(name));
    all.insert(all.end(), std::make_move_iterator(some.begin()),
               std::make_move_iterator(some.end()));
  }
  if (lora_plus.ratio != 1) return lora_plus_groups(all, lora_plus);
  std::vector<BasicParameterGroup<T>> one(1);
  for (auto& named : all) one[0].parameters.push_back(std::move(named.parameter));
  return one;
}
/// The same by the settings of a run.
template <std::floating_point T>
std::vector<BasicParameterGroup<T>> parameter_groups(const BasicAdapterModel<T>& adapters,
                                                     const TrainConfig& config) {
  return parameter_groups(adapters,
                          LoRAPlusConfig{.learning_rate = config.optimizer.learning_rate,
                                         .ratio = config.lora_plus_ratio,
                                         .embedding_learning_rate = config.lora_plus_embedding_rate,
                                         .weight_decay = config.optimizer.weight_decay});
}

/// Trains the active adapters of a model. It knows no method by name: auxiliary losses and
/// procedures come through the adapters.
///
/// A step is a function of settings, data, step number and the state before it: rows are drawn
/// epoch by epoch from the seed, dropout and random changes of rows from the seed and the number of
/// the batch. So a run
/// that goes on from a checkpoint ends with the bits of an unbroken one, and results do not depend
/// on the number of threads.
template <std::floating_point T>
class BasicTrainer {
 public:
  /// `held_out` may have no rows. Model, adapters and optimiser must outlive the trainer. Without
  /// an optimiser of one's own, AdamW by the settings. @throws ValueError for settings out of
  /// range, no rows, or nothing to train
  BasicTrainer(models::BasicModel<T>& model, BasicAdapterModel<T>& adapters, BasicDataset<T> data,
               BasicDataset<T> held_out, const TrainConfig& config,
               BasicOptimizer<T>* optimizer = nullptr)
      : model_(&model),
        adapters_(&adapters),
        data_(std::move(data)),
        held_out_(std::move(held_out)),
        config_(config),
        optimizer_(optimizer) {
    if (config.steps < 0 || config.batch_size < 1 || config.accumulation < 1 ||
        !(config.epochs > 0))
      throw ValueError(concat("trainer: ", config.steps, " steps or ", config.epochs, " epochs of ",
                              config.accumulation, " x ", config.batch_size, " rows"));
    if (data_.rows < 1) throw ValueError("trainer: no rows to train on");
    if (optimizer_ == nullptr) {
      own_ = std::make_unique<BasicAdamW<T>>(parameter_groups(adapters, config), config.optimizer);
      optimizer_ = own_.get();
    }
    if (optimizer_->size() == 0)
      throw ValueError(concat("trainer: the active adapters have no trained tensors", why_empty()));
    base_rate_ = optimizer_->learning_rate();
    config_.steps = steps_of(config, data_.rows);
  }

  const TrainConfig& config() const { return config_; }
  /// Steps of the whole run.
  Index steps() const { return config_.steps; }
  /// Steps done, those before a checkpoint included.
  Index step() const { return step_; }
  bool done() const { return step_ >= config_.steps; }
  const TrainHistory& history() const { return history_; }
  BasicOptimizer<T>& optimizer() { return *optimizer_; }

  /// Goes on from a checkpoint folder; returns the note that the program kept in it.
  /// @throws IoError, ValueError if it is not one of a run with these settings, adapters and data
  io::Json resume(const std::filesystem::path& checkpoint) {
    const auto state = load_checkpoint(checkpoint, *adapters_, *optimizer_);
    const io::JsonView json(state, (checkpoint / "state.json").string());
    const auto expect = [&](const char* key, const std::string& now) {
      if (const std::string& then = json.at(key).string(); then != now)
        json.at(key).fail(concat("the run had ", then, ", this one has ", now));
    };
    expect("seed", std::to_string(config_.seed));
    expect("rows_per_step", concat(config_.accumulation, " x ", config_.batch_size));
    expect("steps", std::to_string(config_.steps));
    expect("data", std::to_string(data_.fingerprint));
    step_ = static_cast<Index>(json.at("step").integer(0, config_.steps));
    history_ = {};
    for (const auto& item : json.at("history").elements())
      history_.steps.push_back(read_step(item.numbers()));
    for (const auto& item : json.at("evaluations").elements())
      history_.evaluations.push_back(read_evaluation(item.numbers()));
    return json.at("note").json();
  }

  /// Evaluates on the held-out rows and adds that to the history; nothing if there are none or
  /// `stop` became true.
  std::optional<Evaluation> evaluate(const TrainCallbacks& callbacks = {}) {
    if (held_out_.rows == 0) return std::nullopt;
    const auto result = graft::evaluate(*model_, held_out_, config_.batch_size, callbacks.stop);
    if (!result) return std::nullopt;
    history_.evaluations.push_back({step_, *result});
    if (callbacks.on_evaluation) callbacks.on_evaluation(history_.evaluations.back());
    return result;
  }

  /// Runs to the last step, or until `stop`; true if the run is complete.
  /// @throws NotFiniteError if a loss or a gradient is not finite; the parameters are those before
  /// that step, checkpoints stay
  bool run(const TrainCallbacks& callbacks = {}) {
    const auto stop = [&] { return callbacks.stop && callbacks.stop(); };
    while (!done()) {
      history_.steps.push_back(one_step());
      if (callbacks.on_step) callbacks.on_step(history_.steps.back());
      const bool stopped = stop();
      if (!stopped && (done() || (config_.eval_interval > 0 && step_ % config_.eval_interval == 0)))
        evaluate(callbacks);
      const bool wanted =
          config_.checkpoint_interval > 0 && !done() && step_ % config_.checkpoint_interval == 0;
      if (!config_.checkpoints.empty() && (wanted || (!done() && stop()))) save(callbacks);
      if (stop()) break;
    }
    return done();
  }

  /// Writes a checkpoint of the state now. @throws IoError
  std::filesystem::path save(const TrainCallbacks& callbacks = {}) const {
    io::Json state{{"seed", std::to_string(config_.seed)},
                   {"rows_per_step", concat(config_.accumulation, " x ", config_.batch_size)},
                   {"steps", std::to_string(config_.steps)},
                   {"data", std::to_string(data_.fingerprint)},
                   {"next_row", step_ * config_.accumulation * config_.batch_size},
                   {"note", callbacks.note ? callbacks.note() : io::Json::object()}};
    state["history"] = io::Json::array();
    for (const auto& r : history_.steps) state["history"].push_back(write_step(r));
    state["evaluations"] = io::Json::array();
    for (const auto& e : history_.evaluations) state["evaluations"].push_back(write_evaluation(e));
    const auto path =
        save_checkpoint(config_.checkpoints, step_, *adapters_, *optimizer_, std::move(state),
                        std::max<std::size_t>(1, config_.keep_checkpoints));
    if (callbacks.on_checkpoint) callbacks.on_checkpoint(step_, path);
    return path;
  }

 private:
  using Clock = std::chrono::steady_clock;

  StepReport one_step() {
    const auto begin = Clock::now();
    const double rate = base_rate_ * learning_rate_ratio(config_.schedule, step_, config_.steps);
    StepInfo info{step_ + 1, config_.steps, rate};
    info.full_learning_rate = base_rate_;
    const auto procedures = [&](auto&& call) {
      for (const auto& name : adapters_->active())
        if (auto* procedure = adapters_->at(name).procedure()) call(*procedure);
    };
    std::vector<models::BasicBatch<T>> batches;
    Index predictions = 0, tokens = 0;
    for (Index part = 0; part < config_.accumulation; ++part) {
      const Index number = step_ * config_.accumulation + part;
      const auto rows = draw(number);
      batches.push_back(data_.training_batch ? data_.training_batch(rows, seed_of(number))
                                             : data_.batch(rows));
      predictions += detail::predictions(*model_, batches.back());
      tokens += size_of(batches.back());
    }
    if (predictions == 0)
      throw ValueError(concat("trainer: step ", step_ + 1, " has no prediction to learn from"));
    const auto share_of = [&](std::size_t part) {
      return static_cast<double>(detail::predictions(*model_, batches[part])) /
             static_cast<double>(predictions);
    };
    info.loss = [&] {
      double mean = 0;
      for (std::size_t part = 0; part < batches.size(); ++part) {
        const double share = share_of(part);
        if (share == 0) continue;
        BasicTape<T> tape({.gradients = false, .training = false});
        mean += share * static_cast<double>(model_->loss(tape, batches[part]).item());
      }
      return mean;
    };
    procedures([&](auto& p) { p.before_step(info); });
    optimizer_->zero_grad();

    StepReport report;
    for (std::size_t part = 0; part < batches.size(); ++part) {
      const double share = share_of(part);
      if (share == 0) continue;
      BasicTape<T> tape({.seed = seed_of(step_ * config_.accumulation + static_cast<Index>(part)),
                         .bf16_saved = config_.bf16_saved});
      auto loss = adapters_->training_loss(tape, model_->passes(tape, batches[part]));
      report.loss += share * static_cast<double>(loss.item());
      if (const auto extra = adapters_->auxiliary_loss(tape)) {
        report.auxiliary += share * static_cast<double>(extra.item());
        loss = add(loss, extra);
      }
      if (!std::isfinite(loss.item())) fail("loss", static_cast<double>(loss.item()));
      if (!loss.requires_grad())
        throw ValueError(concat("trainer: the loss depends on no trained tensor", why_empty()));
      tape.backward(loss, BasicTensor<T>::full(loss.shape(), static_cast<T>(share)));
    }
    procedures([&](auto& p) { p.after_backward(info); });
    report.gradient_norm = gradient_norm(optimizer_->parameters());
    if (!std::isfinite(report.gradient_norm)) fail("gradient norm", report.gradient_norm);
    optimizer_->set_learning_rate(rate);
    info.gradient_scale = clip_factor(report.gradient_norm, config_.max_gradient_norm);
    optimizer_->step(info.gradient_scale);
    optimizer_->set_learning_rate(base_rate_);
    procedures([&](auto& p) { p.after_step(info); });
    optimizer_->zero_grad();

    ++step_;
    report.step = step_;
    report.steps = config_.steps;
    report.learning_rate = rate;
    report.seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    report.tokens_per_second = static_cast<double>(tokens) / std::max(report.seconds, 1e-9);
    // The first step of a run warms memory up; it does not speak for the rest.
    recent_ = recent_ == 0 || step_ - first_timed_ <= 1 ? report.seconds
                                                        : 0.9 * recent_ + 0.1 * report.seconds;
    if (first_timed_ == 0) first_timed_ = step_;
    report.seconds_left = recent_ * static_cast<double>(config_.steps - step_);
    return report;
  }

  /// What active adapters that train nothing yet wait for.
  std::string why_empty() const {
    std::string text;
    for (const auto& name : adapters_->active())
      if (const auto& info = adapters_->at(name).info(); !info.starts_empty.empty())
        text += concat("; ", info.name, ": ", info.starts_empty);
    return text;
  }

  static Index size_of(const models::BasicBatch<T>& batch) {
    if (batch.ids.empty()) return batch.batch;
    if (batch.mask.empty()) return static_cast<Index>(batch.ids.size());
    return static_cast<Index>(
        std::count(batch.mask.begin(), batch.mask.end(), static_cast<unsigned char>(1)));
  }

  /// Seed of what is random in batch number k.
  std::uint64_t seed_of(Index k) const {
    return text::detail::mix_seeds(config_.seed, static_cast<std::uint64_t>(k));
  }
  /// Rows of batch number k: epoch after epoch, each in an order of its own.
  std::vector<Index> draw(Index k) {
    std::vector<Index> picked;
    for (Index i = 0; i < config_.batch_size; ++i) {
      const Index at = k * config_.batch_size + i, epoch = at / data_.rows;
      if (epoch != epoch_) {
        order_ = text::epoch_order(data_.rows, config_.seed, static_cast<std::uint64_t>(epoch));
        epoch_ = epoch;
      }
      picked.push_back(order_[static_cast<std::size_t>(at % data_.rows)]);
    }
    return picked;
  }

  [[noreturn]] void fail(const char* what, double value) const {
    const auto tensor = first_not_finite(*model_, *adapters_);
    throw NotFiniteError(concat(
        "step ", step_ + 1, ": the ", what, " is ", std::isnan(value) ? "nan" : "infinite", "; ",
        tensor.empty() ? "all weights are finite: an activation overflowed (a smaller "
                         "learning rate, or smaller numbers in the data, may help)"
                       : tensor));
  }

  static io::Json write_step(const StepReport& r) {
    return {r.step,          r.steps,         r.loss,    r.auxiliary,
            r.learning_rate, r.gradient_norm, r.seconds, r.tokens_per_second,
            r.seconds_left};
  }
  static StepReport read_step(const std::vector<double>& v) {
    if (v.size() != 9)
      throw IoError(concat("checkpoint: ", v.size(), " numbers of a step, expected 9"));
    return {static_cast<Index>(v[0]),
            static_cast<Index>(v[1]),
            v[2],
            v[3],
            v[4],
            v[5],
            v[6],
            v[7],
            v[8]};
  }
  static io::Json write_evaluation(const EvaluationReport& e) {
    return {e.step, e.result.loss, e.result.accuracy, e.result.count};
  }
  static EvaluationReport read_evaluation(const std::vector<double>& v) {
    if (v.size() != 4)
      throw IoError(concat("checkpoint: ", v.size(), " numbers of an evaluation, expected 4"));
    return {static_cast<Index>(v[0]), {v[1], std::exp(v[1]), v[2], static_cast<Index>(v[3])}};
  }

  models::BasicModel<T>* model_;
  BasicAdapterModel<T>* adapters_;
  BasicDataset<T> data_;
  BasicDataset<T> held_out_;
  TrainConfig config_;
  std::unique_ptr<BasicOptimizer<T>> own_;
  BasicOptimizer<T>* optimizer_;
  double base_rate_ = 0;
  Index step_ = 0;
  TrainHistory history_;
  Index epoch_ = -1;
  std::vector<Index> order_;
  double recent_ = 0;
  Index first_timed_ = 0;
};

using Trainer = BasicTrainer<float>;

/// Trains the active adapters of a model on rows, from the first step to the last; returns what
/// happened.
///
///     BasicAdapterModel adapters(model->sites(), all_methods<float>());
///     adapters.add("style", LoRAConfig{.rank = 8, .target_modules = "all-linear"});
///     train(*model, adapters, text_dataset<float>(examples, pad), {.epochs = 1, .batch_size = 4});
///     adapters.save("style", "style/");
template <std::floating_point T>
TrainHistory train(models::BasicModel<T>& model, BasicAdapterModel<T>& adapters,
                   const BasicDataset<T>& data, const TrainConfig& config = {},
                   const TrainCallbacks& callbacks = {}) {
  BasicTrainer<T> trainer(model, adapters, data, {}, config);
  trainer.run(callbacks);
  return trainer.history();
}

}  // namespace graft::inline v0_1
