#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/layer_scores.hpp"
#include "graft/adapters/low_rank/lora_method.hpp"
#include "graft/adapters/target_match.hpp"

namespace graft::inline v0_1 {

/// Configuration of IST over LoRA: the fields of LoRA and those of the choice of layers.
struct ISTConfig : LoRAConfig {
  Index n_layers_updated = 0;     ///< layers that learn in a step; 0: a quarter
  Index n_layers_suppressed = 0;  ///< layers of a set that is tried out; 0: half
  Index rl_step = 3;              ///< sets a measurement
  double rl_lr = 10;              ///< rate of the scores
  double response_suppression_factor = 0.25;
  Index update_importance_interval_steps = 10;
  std::uint64_t seed = 0;  ///< of what is drawn
  /// Layers that learn in step 1, 2, …, and the sets of every measurement, in place of drawn ones.
  std::vector<std::vector<Index>> active_layers = {};
  std::vector<std::vector<Index>> suppressed_layers = {};

  static constexpr const char* kPeftType = "IST";

  template <class Visitor>
  void fields(Visitor& v) {
    LoRAConfig::fields(v);
    v("n_layers_updated", n_layers_updated);
    v("n_layers_suppressed", n_layers_suppressed);
    v("rl_step", rl_step);
    v("rl_lr", rl_lr);
    v("response_suppression_factor", response_suppression_factor);
    v("update_importance_interval_steps", update_importance_interval_steps);
    optional_field(v, "seed", seed, 0);
    v("active_layers", active_layers);
    v("suppressed_layers", suppressed_layers);
  }
  /// @throws ValueError for a number out of its range, and for what LoRA refuses.
  void validate() const {
    LoRAConfig::validate();
    if (n_layers_updated < 0 || n_layers_suppressed < 0 || rl_step < 1 ||
        update_importance_interval_steps < 1)
      throw ValueError(concat("IST: n_layers_updated ", n_layers_updated, ", n_layers_suppressed ",
                              n_layers_suppressed, ", rl_step ", rl_step,
                              ", update_importance_interval_steps ",
                              update_importance_interval_steps));
  }
};

/// An adapter of a linear layer whose effect can be turned down: base(x) + f (adapted(x) −
/// base(x)).
template <std::floating_point T>
class BasicDimmedLinear final : public LinearPart<T> {
 public:
  explicit BasicDimmedLinear(std::shared_ptr<LinearPart<T>> inner) : inner_(std::move(inner)) {}
  BasicVar<T> apply(const BasicLinearView<T>& base, const BasicVar<T>& x) const override {
    const auto y = inner_->apply(base, x);
    if (factor_ == T{1}) return y;
    const auto before = base(x);
    return add(before, scale(sub(y, before), factor_));
  }
  std::vector<AdapterTensor<T>> tensors() const override { return inner_->tensors(); }
  std::vector<AdapterTensor<T>> file_tensors() const override { return inner_->file_tensors(); }
  void before_load(const CheckpointShapes& shapes) override { inner_->before_load(shapes); }
  void after_load() override { inner_->after_load(); }
  BasicVar<T> auxiliary_loss(BasicTape<T>& tape) const override {
    return inner_->auxiliary_loss(tape);
  }
  std::string merge_reason() const override { return inner_->merge_reason(); }
  bool input_in_order() const override { return inner_->input_in_order(); }
  std::optional<LowRankTerm<T>> low_rank_term() const override {
    return factor_ == T{1} ? inner_->low_rank_term() : std::nullopt;
  }
  void set_factor(double factor) { factor_ = static_cast<T>(factor); }

 private:
  std::shared_ptr<LinearPart<T>> inner_;
  T factor_ = 1;
};

/// IST in training: each step a few layers learn; every now and then sets of layers are turned
/// down, and the loss says how much they are missed.
template <std::floating_point T>
class ISTProcedure final : public Procedure<T> {
 public:
  ISTProcedure(const ISTConfig& config, const std::vector<PlacedPart<T>>& parts)
      : config_(config), scores_(0) {
    std::map<Index, std::vector<BasicDimmedLinear<T>*>> layers;
    for (const auto& placed : parts)
      if (auto* part = dynamic_cast<BasicDimmedLinear<T>*>(placed.part.get()))
        if (const Index layer = layer_of(placed.path, config.select.layers_pattern); layer >= 0)
          layers[layer].push_back(part);
    for (auto& [number, list] : layers) {
      numbers_.push_back(number);
      trained_.emplace_back();
      for (const auto* part : list)
        for (const auto& t : part->tensors())
          if (t.parameter && t.parameter.trainable()) trained_.back().push_back(t.parameter);
      layers_.push_back(std::move(list));
    }
    scores_ = LayerScores(static_cast<Index>(layers_.size()));
  }

  /// Scores by layer, in the order of the layers' numbers.
  const LayerScores& scores() const { return scores_; }

  void before_step(const StepInfo& info) override {
    if (layers_.empty()) return;
    if (info.loss && info.step % config_.update_importance_interval_steps == 0)
      measure(info.loss, static_cast<std::uint64_t>(info.step));
    const auto count = static_cast<Index>(layers_.size());
    std::vector<Index> active;
    if (!config_.active_layers.empty()) {
      const auto at = static_cast<std::size_t>(info.step - 1) % config_.active_layers.size();
      active = places_of(config_.active_layers[at]);
    } else {
      const Index wanted = config_.n_layers_updated > 0 ? config_.n_layers_updated : count / 4;
      active = LayerScores::sample(scores_.needed(), std::max<Index>(1, wanted), config_.seed,
                                   2 * static_cast<std::uint64_t>(info.step));
    }
    for (std::size_t l = 0; l < layers_.size(); ++l)
      let_learn(l, std::find(active.begin(), active.end(), static_cast<Index>(l)) != active.end());
  }
  void after_step(const StepInfo&) override {
    for (std::size_t l = 0; l < layers_.size(); ++l) let_learn(l, true);
  }
  /// Evaluates the loss with each of `rl_step` sets turned down, and moves the scores. Parameters
  /// stay as they are. The losses, in the order of the sets.
  std::vector<double> measure(const std::function<double()>& loss, std::uint64_t step = 0) {
    const auto count = static_cast<Index>(layers_.size());
    std::vector<std::vector<Index>> sets;
    for (const auto& given : config_.suppressed_layers) sets.push_back(places_of(given));
    const Index wanted = config_.n_layers_suppressed > 0 ? config_.n_layers_suppressed : count / 2;
    for (Index c = 0; config_.suppressed_layers.empty() && c < config_.rl_step; ++c)
      sets.push_back(LayerScores::sample(scores_.dispensable(), std::max<Index>(1, wanted),
                                         config_.seed + 1 + static_cast<std::uint64_t>(c),
                                         2 * step + 1));
    std::vector<double> losses;
    for (const auto& set : sets) {
      const Dimmed dimmed(*this, set);
      losses.push_back(loss());
    }
    scores_.update(sets, losses, config_.rl_lr);
    return losses;
  }
  std::map<std::string, std::vector<double>> state() const override {
    return {{"scores", scores_.scores()}};
  }
  void set_state(const std::map<std::string, std::vector<double>>& all) override {
    scores_ = LayerScores(static_cast<Index>(layers_.size()));
    if (const auto it = all.find("scores"); it != all.end()) scores_.set_scores(it->second);
  }

 private:
  /// Layers turned down while this lives.
  class Dimmed {
   public:
    Dimmed(ISTProcedure& owner, const std::vector<Index>& set) : owner_(owner), set_(set) {
      put(owner_.config_.response_suppression_factor);
    }
    ~Dimmed() { put(1); }
    Dimmed(const Dimmed&) = delete;
    Dimmed& operator=(const Dimmed&) = delete;

   private:
    void put(double factor) {
      for (const Index l : set_)
        for (auto* part : owner_.layers_[static_cast<std::size_t>(l)]) part->set_factor(factor);
    }
    ISTProcedure& owner_;
    const std::vector<Index>& set_;
  };

  std::vector<Index> places_of(const std::vector<Index>& numbers) const {
    std::vector<Index> places;
    for (const Index n : numbers) {
      const auto it = std::find(numbers_.begin(), numbers_.end(), n);
      if (it == numbers_.end()) throw ValueError(concat("IST: layer ", n, " has no adapter"));
      places.push_back(it - numbers_.begin());
    }
    return places;
  }
  void let_learn(std::size_t layer, bool on) {
    for (const auto& p : trained_[layer]) p.set_trainable(on);
  }

  ISTConfig config_;
  std::vector<Index> numbers_;
  std::vector<std::vector<BasicDimmedLinear<T>*>> layers_;
  std::vector<std::vector<BasicParameter<T>>> trained_;
  LayerScores scores_;
};

/// IST over LoRA: in each step only the LoRA of a few layers learns, drawn with weights σ(−s); the
/// others act frozen. The score s says how dispensable a layer is: every `interval` steps sets of
/// layers, drawn with weights σ(s), have their updates multiplied by β, and s follows the losses
/// (LayerScores).
///
/// Trained: r (in + out) a site, a share n_layers_updated / layers of it in one step. The identity
/// at the start; merges as LoRA. Source: Yao et al. 2024 (arXiv:2410.11772), algorithm 1, with the
/// constants and the logistic function of the released code. The losses are those of the step's own
/// batch before it is learned from. Layers are found by the numbers in the paths of their sites.
template <std::floating_point T>
struct ISTMethod {
  using Scalar = T;
  using Config = ISTConfig;
  static MethodInfo info() {
    return {.peft_type = "IST",
            .name = "IST over LoRA",
            .family = "low_rank",
            .paper = "arXiv:2410.11772",
            .sites = "linear, conv",
            .parameters = "r (in + out)",
            .in_peft = false};
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    return std::make_shared<BasicDimmedLinear<T>>(LoRAMethod<T>::linear(config, site, context));
  }
  static std::unique_ptr<Procedure<T>> procedure(const Config& config,
                                                 const std::vector<PlacedPart<T>>& parts) {
    return std::make_unique<ISTProcedure<T>>(config, parts);
  }
};

}  // namespace graft::inline v0_1
