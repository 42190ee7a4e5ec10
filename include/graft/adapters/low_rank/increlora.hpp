#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/low_rank/adalora.hpp"
#include "graft/adapters/low_rank/own_adamw.hpp"
#include "graft/adapters/method.hpp"
#include "graft/autograd/ops/observe_linear.hpp"

namespace graft::inline v0_1 {

/// Configuration of IncreLoRA. The procedure moves what grew with AdamW at the run's rate.
struct IncreLoRAConfig {
  Index init_rank = 1;
  Index target_rank = 2;             ///< mean over the adapted layers at the end
  std::optional<Index> growth = {};  ///< incre_rank_num; nothing: half of the target rank
  Index top = 2;                     ///< top_h: modules that grow at a time
  Index warmup = 1000;               ///< init_warmup: steps without growth
  Index interval = 1000;             ///< incre_interval: steps between growths
  double alpha = 16;
  double dropout = 0;
  double beta1 = 0.85;                ///< of the moving average of the score
  double beta2 = 0.85;                ///< of its uncertainty
  bool advance_learn = true;          ///< the reserve's vectors learn before they are needed
  double orthogonality_weight = 0.1;  ///< orth_reg_weight
  std::string score = "sqrt";         ///< over √(out in), or mean: over out in
  double weight_decay = 0;            ///< of what grew
  Index seed = 0;                     ///< of what grew
  bool multi_lr = false;      ///< a schedule of its own for what grew in a step, see growth_rate
  Index multi_lr_warmup = 0;  ///< steps of its warm-up
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "INCRELORA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("init_r", init_rank);
    v("target_r", target_rank);
    v("incre_rank_num", growth);
    v("top_h", top);
    v("init_warmup", warmup);
    v("incre_interval", interval);
    v("lora_alpha", alpha);
    v("lora_dropout", dropout);
    v("beta1", beta1);
    v("beta2", beta2);
    v("advance_learn", advance_learn);
    v("orth_reg_weight", orthogonality_weight);
    v("score", score);
    optional_field(v, "weight_decay", weight_decay, 0.0);
    optional_field(v, "seed", seed, Index{0});
    optional_field(v, "multi_lr", multi_lr, false);
    optional_field(v, "multi_lr_warmup", multi_lr_warmup, Index{0});
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for settings out of range or an unknown word.
  void validate() const {
    if (init_rank < 1 || target_rank < 1 || reserve() < 1 || top < 1 || interval < 1)
      throw ValueError(concat("IncreLoRA: init_r ", init_rank, ", target_r ", target_rank,
                              ", incre_rank_num ", reserve(), ", top_h ", top, ", incre_interval ",
                              interval, ", expected at least 1"));
    if (multi_lr_warmup < 0)
      throw ValueError(
          concat("IncreLoRA: multi_lr_warmup ", multi_lr_warmup, ", expected at least 0"));
    if (score != "sqrt" && score != "mean")
      throw ValueError(concat("IncreLoRA: score '", score, "', expected sqrt or mean"));
  }
  /// Share of the run's full learning rate, at step t (from 1) of T, of what grew in step `born`:
  /// up over the warm-up, then linearly down to the end of the run, counted from the step after it.
  double growth_rate(Index t, Index total, Index born) const {
    const auto step = static_cast<double>(t - born - 1), up = static_cast<double>(multi_lr_warmup);
    if (step < up) return (step + 1) / (up + 1);
    return std::max(0.0, 1 - (step - up) / std::max(1.0, static_cast<double>(total - born) - up));
  }
  /// Components that a module keeps in reserve.
  Index reserve() const { return growth.value_or(std::max<Index>(1, target_rank / 2)); }
};

/// IncreLoRA: y = base(x) + c · (drop(x) (A ⊙ E)ᵀ) Bᵀ, c = alpha / (R + 10⁻⁵), over components that
/// are added while a run goes on.
///
/// Component 0 is a block of init_r, A₀: [r, in], B₀: [out, r] ~ N(0, 0.02²), E₀: [r, 1], zero;
/// later ones are single vectors. The last `incre_rank_num` components are the reserve, which R
/// does not count: e = 10⁻⁵, frozen, while a and b learn, or all frozen and e = 0. Trained: init_r
/// (in + out + 1) at first. The identity at the start; merges. Loss: orth_reg_weight · mean over
/// all A_k and B_k of ‖A Aᵀ − I‖_F and ‖Bᵀ B − I‖_F. Source: Zhang et al. 2023 (arXiv:2308.12043).
/// Score over √(out in) as in the authors' code; the end is when the total rank reaches the target
/// or passes it, where their code never stops. Tensors: lora_A.k, lora_E.k, lora_B.k, ranknum.
template <std::floating_point T>
class BasicIncreLoRA {
 public:
  using Scalar = T;
  using Config = IncreLoRAConfig;
  struct Component {
    BasicParameter<T> a, e, b;
  };

  BasicIncreLoRA(const IncreLoRAConfig& config, const LinearSiteInfo<T>& site,
                 InitContext<T>& context)
      : path_(site.path),
        config_((config.validate(), config)),
        in_(site.in_features),
        out_(site.out_features),
        active_(std::make_shared<IndexTensor>()),
        entries_(context.shared.object("increlora.entries",
                                       [] { return std::map<std::string, Index>(); })) {
    const Index r = config.init_rank;
    const auto draw = [&](const Shape& shape) {
      return context.loading ? BasicTensor<T>::zeros(shape)
                             : detail::normal_tensor<T>(context.generator, shape, 0.02);
    };
    auto a = draw({r, in_});
    active_->shape = {1};
    active_->values = {r};
    append(std::move(a), BasicTensor<T>::zeros({r, 1}), draw({out_, r}));
    mark();
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicIncreLoRA(const IncreLoRAConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicIncreLoRA(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto dropped = graft::dropout(x, config_.dropout);
    const auto a = mul(joined(tape, 0, &Component::a), joined(tape, 0, &Component::e));
    const auto y = linear_low_rank(base, x, dropped, a, joined(tape, 1, &Component::b),
                                   static_cast<T>(scaling()));
    if (!gradient_) return y;
    return observe_linear<T>(y, dropped, [sum = gradient_](const auto& in, const auto& dy) {
      kernels::gemm(true, false, dy.cols(), in.cols(), in.rows(), T{1}, dy.data(), dy.cols(),
                    in.data(), in.cols(), T{1}, sum->data(), in.cols());
    });
  }
  BasicVar<T> auxiliary_loss(BasicTape<T>& tape) const {
    if (config_.orthogonality_weight == 0) return {};
    BasicVar<T> total;
    for (const auto& c : components_) {
      const auto both = detail::orthogonality(tape.parameter(c.a), tape.parameter(c.b), false);
      total = total ? add(total, both) : both;
    }
    Index entries = 0;
    for (const auto& [path, count] : *entries_) entries += count;
    return scale(total,
                 static_cast<T>(config_.orthogonality_weight / static_cast<double>(2 * entries)));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    for (auto& [name, parameter] : named()) list.push_back(detail::named(name, parameter));
    list.push_back(detail::named<T>("ranknum", active_));
    return list;
  }
  /// As many components as a file holds, of its sizes.
  void before_load(const CheckpointShapes& shapes) {
    const auto sizes = detail::ranks_in_file(shapes);
    if (sizes.empty()) return;
    const std::size_t same = detail::blocks_as_in_file(components_, sizes);
    components_.erase(components_.begin() + static_cast<std::ptrdiff_t>(same), components_.end());
    (*entries_)[path_] = static_cast<Index>(same);
    for (std::size_t k = same; k < sizes.size(); ++k)
      append(BasicTensor<T>::zeros({sizes[k], in_}), BasicTensor<T>::zeros({sizes[k], 1}),
             BasicTensor<T>::zeros({out_, sizes[k]}));
  }
  /// @throws ValueError if ranknum is none of the ranks that the components add up to.
  void after_load() {
    mark();
    Index rank = 0;
    bool fits = false;
    for (const auto& c : components_) {
      rank += c.a.shape()[0];
      fits = fits || rank == active_->values[0];
    }
    if (!fits)
      throw ValueError(concat("ranknum ", active_->values[0], " of ", path_, " with components of ",
                              rank, " ranks"));
  }

  /// Adds components of rank one that wait: a: [q, in], b: [out, q].
  void add_reserve(const BasicTensor<T>& a, const BasicTensor<T>& b) {
    for (Index k = 0; k < a.rows(); ++k) {
      auto column = BasicTensor<T>::empty({out_, 1});
      for (Index o = 0; o < out_; ++o) column[o] = b(o, k);
      append(a.slice_rows(k, 1).clone(),
             BasicTensor<T>::full({1, 1}, static_cast<T>(config_.advance_learn ? 1e-5 : 0)),
             std::move(column));
    }
    mark();
  }
  /// All that waits becomes active.
  void activate() {
    active_->values[0] = components_rank();
    mark();
  }
  /// What waits adds nothing any more.
  void silence() {
    for (auto& c : components_)
      if (!c.e.trainable()) c.e.value().fill(T{0});
  }

  /// R, without the reserve.
  Index rank() const { return static_cast<Index>(active_->values[0]); }
  Index components_rank() const {
    Index rank = 0;
    for (const auto& c : components_) rank += c.a.shape()[0];
    return rank;
  }
  double scaling() const { return config_.alpha / (static_cast<double>(rank()) + 1e-5); }
  Index in_features() const { return in_; }
  Index out_features() const { return out_; }
  const std::vector<Component>& components() const { return components_; }
  /// The tensors of all components from the number `first` on, with their names.
  std::vector<std::pair<std::string, BasicParameter<T>>> named(std::size_t first = 0) const {
    std::vector<std::pair<std::string, BasicParameter<T>>> list;
    for (std::size_t k = first; k < components_.size(); ++k) {
      const auto& c = components_[k];
      list.emplace_back(concat("lora_A.", k), c.a);
      list.emplace_back(concat("lora_E.", k), c.e);
      list.emplace_back(concat("lora_B.", k), c.b);
    }
    return list;
  }

  /// From now on backward passes add up ∂L/∂ΔW, or no longer.
  void collect(bool on) {
    gradient_ = on ? std::make_shared<BasicTensor<T>>(BasicTensor<T>::zeros({out_, in_})) : nullptr;
  }
  /// Σ |ΔW ⊙ ∂L/∂ΔW| over √(out in), or out in, of what was collected.
  double score() const {
    if (!gradient_) throw ValueError(concat("IncreLoRA: nothing was collected at ", path_));
    BasicTape<T> tape({.gradients = false});
    const auto a = mul(joined(tape, 0, &Component::a), joined(tape, 0, &Component::e)).value(),
               b = joined(tape, 1, &Component::b).value();
    const auto update = detail::product(b, a, static_cast<T>(scaling()));
    double total = 0;
    for (Index i = 0; i < update.size(); ++i)
      total += std::abs(static_cast<double>(update[i]) * static_cast<double>((*gradient_)[i]));
    const double n = static_cast<double>(update.size());
    return total / (config_.score == "mean" ? n : std::sqrt(n));
  }

 private:
  void append(BasicTensor<T> a, BasicTensor<T> e, BasicTensor<T> b) {
    components_.push_back({BasicParameter<T>(std::move(a)), BasicParameter<T>(std::move(e)),
                           BasicParameter<T>(std::move(b))});
    (*entries_)[path_] = static_cast<Index>(components_.size());
  }
  /// What is active learns, of the reserve at most the vectors.
  void mark() {
    Index rank = 0;
    for (const auto& c : components_) {
      rank += c.a.shape()[0];
      const bool active = rank <= active_->values[0];
      c.e.set_trainable(active);
      c.a.set_trainable(active || config_.advance_learn);
      c.b.set_trainable(active || config_.advance_learn);
    }
  }
  BasicVar<T> joined(BasicTape<T>& tape, int axis, BasicParameter<T> Component::*part) const {
    std::vector<BasicVar<T>> parts;
    for (const auto& c : components_) parts.push_back(tape.parameter(c.*part));
    return concat_along(axis, parts);
  }

  std::string path_;
  IncreLoRAConfig config_;
  Index in_, out_;
  std::shared_ptr<IndexTensor> active_;                    ///< R
  std::shared_ptr<std::map<std::string, Index>> entries_;  ///< components of all layers
  std::vector<Component> components_;
  std::shared_ptr<BasicTensor<T>> gradient_;
};

/// Which modules grow: those with the largest Ī Ū, Ī ← β₁ Ī + (1 − β₁) S, Ū ← β₂ Ū + (1 − β₂) |S −
/// Ī|, until the total rank reaches target_r a layer.
class IncreLoRAGrowth {
 public:
  struct Decision {
    bool first_reserve = false;      ///< every module gets its first reserve
    std::vector<std::size_t> grown;  ///< these activate their reserve and get a new one
    bool stops = false;              ///< every reserve is silenced, for ever
  };

  IncreLoRAGrowth(const IncreLoRAConfig& config, std::size_t modules)
      : config_(config), mean_(modules, 0.0), spread_(modules, 0.0) {}

  /// After the backward pass of step t (from 0), with the ranks and scores of that moment.
  Decision step(Index t, const std::vector<Index>& ranks, const std::vector<double>& scores) {
    Decision d;
    d.first_reserve = t == 0;
    if (stopped_) return d;
    Index total = 0;
    for (const Index r : ranks) total += r;
    const Index modules = static_cast<Index>(ranks.size()), target = config_.target_rank * modules;
    if (total < target) {
      for (std::size_t i = 0; i < scores.size(); ++i) {
        mean_[i] = config_.beta1 * mean_[i] + (1 - config_.beta1) * scores[i];
        spread_[i] =
            config_.beta2 * spread_[i] + (1 - config_.beta2) * std::abs(scores[i] - mean_[i]);
      }
      if (t > config_.warmup && t % config_.interval == 0) {
        auto sorted = importance();
        std::sort(sorted.begin(), sorted.end(), std::greater<>());
        const Index k = std::min({config_.top, target - total, modules});
        const auto all = importance();
        for (std::size_t i = 0; i < all.size(); ++i)
          if (all[i] >= sorted[static_cast<std::size_t>(k - 1)]) d.grown.push_back(i);
        total += config_.reserve() * static_cast<Index>(d.grown.size());
      }
    }
    stopped_ = d.stops = total >= target;
    return d;
  }
  std::vector<double> importance() const {
    std::vector<double> list;
    for (std::size_t i = 0; i < mean_.size(); ++i) list.push_back(mean_[i] * spread_[i]);
    return list;
  }
  bool stopped() const { return stopped_; }

  void keep(detail::ProcedureState& state) const {
    state["mean"] = mean_;
    state["spread"] = spread_;
    state["stopped"] = {stopped_ ? 1.0 : 0.0};
  }
  void restore(const detail::ProcedureState& state) {
    const auto take = [&](const char* name, std::vector<double>& to) {
      const auto it = state.find(name);
      if (it != state.end() && it->second.size() == to.size()) to = it->second;
    };
    take("mean", mean_);
    take("spread", spread_);
    stopped_ = detail::kept_number(state, "stopped", 0) != 0;
  }

 private:
  IncreLoRAConfig config_;
  std::vector<double> mean_, spread_;
  bool stopped_ = false;
};

/// Growth while a run goes on; components that came with it are moved here.
template <std::floating_point T>
class IncreLoRAProcedure final : public Procedure<T> {
 public:
  IncreLoRAProcedure(const IncreLoRAConfig& config, std::vector<std::string> paths,
                     std::vector<BasicIncreLoRA<T>*> parts)
      : config_(config),
        paths_(std::move(paths)),
        parts_(std::move(parts)),
        growth_(config, parts_.size()) {}

  void before_step(const StepInfo&) override {
    for (auto* part : parts_) part->collect(!growth_.stopped());
  }
  void after_backward(const StepInfo& info) override {
    if (config_.multi_lr && info.learning_rate > 0 && !(info.full_learning_rate > 0))
      throw ValueError("IncreLoRA: multi_lr needs StepInfo::full_learning_rate");
    std::vector<Index> ranks;
    std::vector<double> scores;
    for (auto* part : parts_) {
      ranks.push_back(part->rank());
      if (!growth_.stopped()) scores.push_back(part->score());
      part->collect(false);
    }
    const auto decision = growth_.step(info.step - 1, ranks, scores);
    // Gradients are those from before the growth: what is new has none yet.
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      const bool grows =
          std::find(decision.grown.begin(), decision.grown.end(), i) != decision.grown.end();
      const bool waits = parts_[i]->components_rank() > parts_[i]->rank();
      if (grows) activate(i, info.step);
      if (grows || (decision.first_reserve && !waits)) add_reserve(i, info.step);
      if (decision.stops) parts_[i]->silence();
    }
    grown_.step(
        [&](Index born) {
          return config_.multi_lr ? info.full_learning_rate *
                                        config_.growth_rate(info.step, info.total_steps, born)
                                  : info.learning_rate;
        },
        config_.weight_decay);
  }
  std::map<std::string, std::vector<double>> state() const override {
    detail::ProcedureState all;
    grown_.keep(all);
    growth_.keep(all);
    return all;
  }
  void set_state(const std::map<std::string, std::vector<double>>& all) override {
    grown_.restore(all, detail::with_paths<T>(paths_, parts_));
    growth_.restore(all);
  }

 private:
  /// What becomes trainable belongs to the group of this step.
  void activate(std::size_t i, Index step) {
    auto tensors = parts_[i]->named();
    std::erase_if(tensors, [](const auto& named) { return named.second.trainable(); });
    parts_[i]->activate();
    for (const auto& [name, parameter] : tensors)
      if (parameter.trainable()) grown_.set_born(parameter, step);
  }
  void add_reserve(std::size_t i, Index step) {
    auto& part = *parts_[i];
    const auto first = part.components().size();
    const Index q = config_.reserve();
    const auto draw = [&](std::uint64_t side, const Shape& shape) {
      return detail::seeded_factor<T>(static_cast<std::uint64_t>(config_.seed), i, 2 * first + side,
                                      shape);
    };
    part.add_reserve(draw(0, {q, part.in_features()}), draw(1, {part.out_features(), q}));
    for (const auto& [name, parameter] : part.named(first))
      grown_.add(paths_[i] + "." + name, parameter, step);
  }

  IncreLoRAConfig config_;
  std::vector<std::string> paths_;
  std::vector<BasicIncreLoRA<T>*> parts_;
  IncreLoRAGrowth growth_;
  detail::GrownParameters<T> grown_;
};

template <std::floating_point T>
struct IncreLoRAMethod {
  using Scalar = T;
  using Config = IncreLoRAConfig;
  static MethodInfo info() {
    return {.peft_type = "INCRELORA",
            .name = "IncreLoRA",
            .family = "low_rank",
            .paper = "arXiv:2308.12043",
            .sites = "linear",
            .parameters = "init_r (in + out + 1); more when it grows",
            .in_peft = false};
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    return linear_part(BasicIncreLoRA<T>(config, site, context));
  }
  static std::unique_ptr<Procedure<T>> procedure(const Config& config,
                                                 const std::vector<PlacedPart<T>>& parts) {
    std::vector<std::string> paths;
    std::vector<BasicIncreLoRA<T>*> list;
    for (const auto& placed : parts)
      if (auto* part = method_of<BasicIncreLoRA<T>>(placed.part.get())) {
        paths.push_back(placed.path);
        list.push_back(part);
      }
    return std::make_unique<IncreLoRAProcedure<T>>(config, std::move(paths), std::move(list));
  }
};

using IncreLoRA = BasicIncreLoRA<float>;

}  // namespace graft::inline v0_1
