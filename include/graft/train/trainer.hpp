#pragma once

#include <chrono>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "graft/compose/adapter_model.hpp"
#include "graft/models/causal_model.hpp"
#include "graft/optim/clip.hpp"
#include "graft/optim/learning_rate.hpp"
#include "graft/optim/optimizer.hpp"
#include "graft/text/sampling.hpp"
#include "graft/train/checkpoint.hpp"

namespace graft::train {

/// Settings of a training run. Steps count optimiser steps; one takes batch_size · accumulation
/// rows.
struct TrainConfig {
  Index steps = 100;
  Index batch_size = 4;
  Index accumulation = 1;
  double learning_rate = 1e-3;
  LearningRateConfig schedule;
  double max_gradient_norm = 1;       ///< 0: no clipping
  Index eval_interval = 0;            ///< steps between evaluations; 0: none
  Index checkpoint_interval = 0;      ///< steps between checkpoints; 0: none
  std::filesystem::path checkpoints;  ///< folder of the checkpoints
  std::uint64_t seed = 0;
};

/// What happened in one step.
struct StepReport {
  Index step = 0;
  double loss = 0;
  double learning_rate = 0;
  double gradient_norm = 0;
  double tokens_per_second = 0;
  double seconds = 0;
};

/// Mean over the tokens of held-out rows.
struct Evaluation {
  double loss = 0;
  double perplexity = 0;
  double accuracy = 0;  ///< share of tokens whose likeliest prediction was right
  Index tokens = 0;
};

/// Gives batches of rows by number: make(rows) builds one from the given row numbers.
using MakeBatch = std::function<models::Batch(const std::vector<Index>& rows)>;

/// Loss and accuracy of a causal model over rows, batch by batch.
inline Evaluation evaluate(const models::CausalModel& model, const std::vector<Index>& rows,
                           Index batch_size, const MakeBatch& make,
                           const std::function<bool()>& stop = {}) {
  Evaluation result;
  double total = 0;
  Index right = 0;
  for (std::size_t first = 0; first < rows.size(); first += static_cast<std::size_t>(batch_size)) {
    if (stop && stop()) break;
    const std::size_t last = std::min(rows.size(), first + static_cast<std::size_t>(batch_size));
    const models::Batch batch =
        make({rows.begin() + static_cast<Index>(first), rows.begin() + static_cast<Index>(last)});
    Tape tape({.gradients = false, .training = false});
    std::vector<unsigned char> correct;
    std::vector<float> losses;
    model.token_loss(tape, batch, &correct, &losses);
    for (float l : losses) total += static_cast<double>(l);
    for (unsigned char c : correct) right += c;
    result.tokens += static_cast<Index>(losses.size());
  }
  const auto n = static_cast<double>(std::max<Index>(1, result.tokens));
  result.loss = total / n;
  result.perplexity = std::exp(result.loss);
  result.accuracy = static_cast<double>(right) / n;
  return result;
}

/// Trains the active adapters of a model. Knows no method by name: auxiliary losses and procedures
/// come through the adapters.
///
/// A step is a function of (settings, data, step number) and the state before it: rows are drawn by
/// epoch from the seed, and dropout from the seed and the step, so a run that goes on from a
/// checkpoint ends with the bits of an unbroken one. Results do not depend on the number of
/// threads.
class Trainer {
 public:
  struct Callbacks {
    std::function<void(const StepReport&)> on_step;
    std::function<void(Index step, const Evaluation&)> on_evaluation;
    std::function<io::Json()> checkpoint_extra;  ///< what to keep in a checkpoint beside the state
    std::function<bool()> stop;  ///< asked after each step; true ends the run after a checkpoint
  };

  Trainer(models::Model& model, AdapterModel& adapters, std::string adapter, Optimizer& optimizer,
          TrainConfig config)
      : model_(&model),
        adapters_(&adapters),
        adapter_(std::move(adapter)),
        optimizer_(&optimizer),
        config_(std::move(config)) {
    if (config_.steps < 0 || config_.batch_size < 1 || config_.accumulation < 1)
      throw ValueError(concat("trainer: ", config_.steps, " steps of ", config_.accumulation, " x ",
                              config_.batch_size, " rows"));
  }

  /// Steps done, also of the run that a checkpoint came from.
  Index step() const { return step_; }
  /// Goes on from a checkpoint; returns what was kept beside it.
  io::Json resume(const std::filesystem::path& checkpoint) {
    if (adapters_->at(adapter_).procedure() != nullptr)
      throw ValueError(concat("method ", adapters_->at(adapter_).info().peft_type,
                              " cannot go on from a checkpoint"));
    const auto state = load_checkpoint(checkpoint, *adapters_, adapter_, *optimizer_);
    step_ = state.step;
    return state.extra;
  }

  /// Runs to the last step, or until `stop`. @throws ValueError if a loss is not finite; the
  /// parameters are those before that step.
  void run(const std::vector<Index>& rows, const MakeBatch& make,
           const std::vector<Index>& held_out, const Callbacks& callbacks) {
    if (rows.empty()) throw ValueError("trainer: no rows to train on");
    while (step_ < config_.steps) {
      const StepReport report = one_step(rows, make);
      if (callbacks.on_step) callbacks.on_step(report);
      const bool last = step_ == config_.steps;
      if (!held_out.empty() && config_.eval_interval > 0 &&
          (last || step_ % config_.eval_interval == 0) && callbacks.on_evaluation) {
        if (const auto* causal = dynamic_cast<const models::CausalModel*>(model_))
          callbacks.on_evaluation(
              step_, evaluate(*causal, held_out, config_.batch_size, make, callbacks.stop));
      }
      const bool stopped = callbacks.stop && callbacks.stop();
      if (!config_.checkpoints.empty() && (stopped || (config_.checkpoint_interval > 0 && !last &&
                                                       step_ % config_.checkpoint_interval == 0)))
        save_checkpoint(config_.checkpoints, *adapters_, adapter_, *optimizer_,
                        {step_, callbacks.checkpoint_extra ? callbacks.checkpoint_extra()
                                                           : io::Json::object()});
      if (stopped) return;
    }
  }

 private:
  StepReport one_step(const std::vector<Index>& rows, const MakeBatch& make) {
    const auto begin = std::chrono::steady_clock::now();
    auto& set = adapters_->at(adapter_);
    const double rate =
        config_.learning_rate * learning_rate_ratio(config_.schedule, step_, config_.steps);
    const StepInfo info{step_ + 1, config_.steps, rate};
    if (auto* procedure = set.procedure()) procedure->before_step(info);
    optimizer_->zero_grad();
    StepReport report;
    Index tokens = 0;
    for (Index part = 0; part < config_.accumulation; ++part) {
      const models::Batch batch = make(draw(rows, step_ * config_.accumulation + part));
      tokens += static_cast<Index>(batch.ids.size());
      Tape tape(
          {.seed = text::detail::mix_seeds(
               config_.seed, static_cast<std::uint64_t>(step_ * config_.accumulation + part))});
      auto loss = model_->loss(tape, batch);
      if (const auto extra = adapters_->auxiliary_loss(tape)) loss = add(loss, extra);
      const double value = loss.item();
      if (!std::isfinite(value))
        throw ValueError(concat("the loss of step ", step_ + 1, " is ", value, first_bad_tensor()));
      report.loss += value / static_cast<double>(config_.accumulation);
      tape.backward(loss);
    }
    if (auto* procedure = set.procedure()) procedure->after_backward(info);
    const double share = 1.0 / static_cast<double>(config_.accumulation);
    report.gradient_norm = gradient_norm(optimizer_->parameters()) * share;
    if (!std::isfinite(report.gradient_norm))
      throw ValueError(
          concat("the gradient of step ", step_ + 1, " is not finite", first_bad_tensor()));
    optimizer_->set_learning_rate(rate);
    optimizer_->step(share * clip_factor(report.gradient_norm, config_.max_gradient_norm));
    if (auto* procedure = set.procedure()) procedure->after_step(info);
    optimizer_->zero_grad();
    ++step_;
    report.step = step_;
    report.learning_rate = rate;
    report.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    report.tokens_per_second = static_cast<double>(tokens) / report.seconds;
    return report;
  }

  /// Rows of batch number k: epoch after epoch, each in an order of its own.
  std::vector<Index> draw(const std::vector<Index>& rows, Index k) {
    const auto n = static_cast<Index>(rows.size());
    std::vector<Index> picked;
    for (Index i = 0; i < config_.batch_size; ++i) {
      const Index at = k * config_.batch_size + i, epoch = at / n;
      if (epoch != epoch_) {
        order_ = text::epoch_order(n, config_.seed, static_cast<std::uint64_t>(epoch));
        epoch_ = epoch;
      }
      picked.push_back(rows[static_cast<std::size_t>(order_[static_cast<std::size_t>(at % n)])]);
    }
    return picked;
  }

  std::string first_bad_tensor() const {
    const auto bad = [](const Tensor& t) {
      return t && std::any_of(t.begin(), t.end(), [](float v) { return !std::isfinite(v); });
    };
    for (const auto& [key, tensor] : adapters_->at(adapter_).tensors()) {
      if (!tensor.parameter) continue;
      if (bad(tensor.parameter.value())) return concat("; first tensor that is not finite: ", key);
      if (bad(tensor.parameter.grad())) return concat("; first gradient that is not finite: ", key);
    }
    return "";
  }

  models::Model* model_;
  AdapterModel* adapters_;
  std::string adapter_;
  Optimizer* optimizer_;
  TrainConfig config_;
  Index step_ = 0;
  Index epoch_ = -1;
  std::vector<Index> order_;
};

}  // namespace graft::train
