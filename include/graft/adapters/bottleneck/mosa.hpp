#pragma once

#include <algorithm>
#include <cmath>
#include <deque>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/bottleneck/pfeiffer.hpp"
#include "graft/autograd/ops/loss.hpp"
#include "graft/autograd/training_passes.hpp"

namespace graft::inline v0_1 {

/// Configuration of MoSA.
struct MoSAConfig {
  Index adapter_dim = 64;
  Index num_experts = 4;
  double scaling = 0.1;
  double consistency_weight = 1;         ///< λ of the two passes; 0: one pass
  double hidden_consistency_weight = 0;  ///< the same of the hidden states; the original: 0.01
  bool adapter_layernorm = true;         ///< on the input of the adapter
  bool expert_bias = true;               ///< a bias for each expert
  std::string merged_bias = "mean";      ///< of the experts' biases outside of training, or "sum"
  bool share_down = false;               ///< D is one dense matrix, only U is split
  std::string non_linearity = "gelu";
  double dropout = 0;  ///< inside of the adapter; the original: 0.1
  Selection select = {};

  static constexpr const char* kPeftType = "MOSA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("adapter_dim", adapter_dim);
    v("num_experts", num_experts);
    v("scaling", scaling);
    v("consistency_weight", consistency_weight);
    v("hidden_consistency_weight", hidden_consistency_weight);
    v("adapter_layernorm", adapter_layernorm);
    v("expert_bias", expert_bias);
    v("merged_bias", merged_bias);
    v("share_down", share_down);
    v("non_linearity", non_linearity);
    v("dropout", dropout);
    select.fields(v);
  }
  /// @throws ValueError for sizes below one, an unknown activation or merge of biases, a dropout
  /// outside of [0, 1).
  void validate() const {
    if (adapter_dim < 1 || num_experts < 1)
      throw ValueError(concat("MoSA: adapter_dim ", adapter_dim, ", num_experts ", num_experts,
                              ", expected at least 1"));
    if (merged_bias != "mean" && merged_bias != "sum")
      throw ValueError(
          concat("MoSA: merged_bias '", merged_bias, "', expected \"mean\" or \"sum\""));
    if (!(dropout >= 0 && dropout < 1))
      throw ValueError(concat("MoSA: dropout ", dropout, ", expected [0, 1)"));
    detail::require_activation("MoSA", non_linearity);
  }
};

namespace detail {

/// An affine map whose weight is split among experts: element c of W belongs to expert map[c].
template <std::floating_point T>
class SplitAffine {
 public:
  SplitAffine() = default;
  /// @param split  false: one dense matrix that every expert uses
  SplitAffine(Index out, Index in, double bound, const MoSAConfig& config, bool split,
              InitContext<T>& context)
      : experts_(split ? config.num_experts : 1), sum_biases_(config.merged_bias == "sum") {
    weight_ = fresh<T>(context, {out, in}, [bound](TorchGenerator& g, BasicTensor<T>& t) {
      if (bound > 0) g.uniform(t.data(), t.size(), -bound, bound);
    });
    biases_ = split && config.expert_bias;
    bias_ = constant<T>(biases_ ? Shape{experts_, out} : Shape{out}, 0);
    if (!split) return;
    initial_ = BasicParameter<T>(weight_.value().clone(), false);
    map_ = std::make_shared<IndexTensor>();
    map_->shape = {out, in};
    map_->values.assign(static_cast<std::size_t>(out * in), 0);
    if (context.loading) return;
    // One score for each element; band e of the ranks belongs to expert e.
    std::vector<double> scores(map_->values.size());
    context.generator.uniform(scores.data(), std::ssize(scores), 0, 1);
    std::vector<std::size_t> order(scores.size());
    std::iota(order.begin(), order.end(), std::size_t{0});
    std::sort(order.begin(), order.end(),
              [&](std::size_t a, std::size_t b) { return scores[a] < scores[b]; });
    const auto n = static_cast<Index>(order.size());
    for (Index e = 0; e < experts_; ++e)
      for (Index rank = e * n / experts_; rank < (e + 1) * n / experts_; ++rank)
        map_->values[order[static_cast<std::size_t>(rank)]] = e;
  }
  Index experts() const { return experts_; }
  /// With the weight of one expert, W₀ + [map = e] ⊙ (W − W₀), and its bias; e = −1: of all.
  BasicVar<T> operator()(const BasicVar<T>& x, Index e) const {
    auto& tape = x.tape();
    auto w = tape.parameter(weight_);
    if (e >= 0 && map_) {
      auto mask = BasicTensor<T>::empty(w.shape());
      for (Index i = 0; i < mask.size(); ++i) mask[i] = owner(i) == e ? T{1} : T{0};
      const auto first = tape.constant(initial_.value());
      w = add(first, mul(tape.constant(mask), sub(w, first)));
    }
    auto b = tape.parameter(bias_);
    if (biases_) {
      if (e >= 0)
        b = slice(b, 0, e, 1);
      else
        b = sum_biases_ ? sum_axis(b, 0, true) : mean_axis(b, 0, true);
      b = reshape(b, {b.cols()});
    }
    return add(matmul(x, w, Transpose::no, Transpose::yes), b);
  }
  void list(const std::string& name, std::vector<AdapterTensor<T>>& tensors) const {
    tensors.push_back(named(name + ".weight", weight_));
    tensors.push_back(named(name + ".bias", bias_));
    if (!map_) return;
    tensors.push_back(named<T>(name + ".weight_expert", map_));
    tensors.push_back(named(name + ".weight_initial", initial_));
  }
  /// @throws ValueError for an expert that does not exist.
  void check() const {
    for (Index i = 0; map_ && i < std::ssize(map_->values); ++i)
      if (owner(i) < 0 || owner(i) >= experts_)
        throw ValueError(concat("MoSA: an element belongs to expert ", owner(i), " of ", experts_));
  }
  /// What an optimiser would move although no expert that ran owns it.
  struct Kept {
    BasicTensor<T> weight, bias;
  };
  Kept keep() const { return {weight_.value().clone(), bias_.value().clone()}; }
  void restore(const Kept& kept, const std::vector<bool>& ran) const {
    if (!map_) return;
    const auto put = [](BasicTensor<T> value, const BasicTensor<T>& before, auto&& stays) {
      for (Index i = 0; i < value.size(); ++i)
        if (stays(i)) value[i] = before[i];
    };
    const auto idle = [&](Index e) { return !ran[static_cast<std::size_t>(e)]; };
    put(weight_.value(), kept.weight, [&](Index i) { return idle(owner(i)); });
    if (biases_)
      put(bias_.value(), kept.bias, [&](Index i) { return idle(i / (bias_.size() / experts_)); });
  }

 private:
  Index owner(Index i) const {
    return static_cast<Index>(map_->values[static_cast<std::size_t>(i)]);
  }

  Index experts_ = 1;
  bool biases_ = false, sum_biases_ = false;
  BasicParameter<T> weight_, bias_, initial_;
  std::shared_ptr<IndexTensor> map_;
};

}  // namespace detail

/// The adapter of one feed-forward sublayer.
template <std::floating_point T>
class BasicMoSA {
 public:
  using Scalar = T;

  BasicMoSA(const MoSAConfig& config, const HiddenSiteInfo<T>& site, InitContext<T>& context)
      : activation_(config.non_linearity),
        scaling_(static_cast<T>(config.scaling)),
        dropout_(config.dropout),
        keeps_states_(config.hidden_consistency_weight > 0) {
    const Index d = site.width, r = config.adapter_dim;
    down_ = {r, d, kaiming_uniform_bound(d, std::sqrt(5.0)), config, !config.share_down, context};
    up_ = {d, r, 0, config, true, context};
    if (config.adapter_layernorm) norm_ = {"adapter_norm", d, 1e-6};
    start_step();
  }
  BasicVar<T> apply(const BasicVar<T>& input, const BasicVar<T>& output,
                    const BasicVar<T>& residual) const {
    const auto& x = residual ? residual : input;
    const auto [i, j] = draw(x.tape());
    const auto h = detail::apply_activation(activation_, down_(norm_(x), i));
    const auto y = add(output, scale(up_(dropout(h, dropout_), j), scaling_));
    if (keeps_states_ && x.tape().training()) states_.push_back(residual ? add(residual, y) : y);
    return y;
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    down_.list("adapter_down", list);
    up_.list("adapter_up", list);
    norm_.list(list);
    return list;
  }
  void after_load() const {
    down_.check();
    up_.check();
  }
  std::string merge_reason() const { return "a bottleneck with an activation is not linear"; }

  /// The experts of D and of U that the next training pass takes; without, it draws.
  void take_next(Index down, Index up) { given_.emplace_back(down, up); }
  /// Hidden states behind the sublayer in the passes since they were taken last.
  std::vector<BasicVar<T>> take_states() const { return std::exchange(states_, {}); }

  // What a step of the optimiser may change.
  void start_step() {
    down_ran_.assign(static_cast<std::size_t>(down_.experts()), false);
    up_ran_.assign(static_cast<std::size_t>(up_.experts()), false);
  }
  void keep() { kept_ = {down_.keep(), up_.keep()}; }
  void restore() {
    down_.restore(kept_.first, down_ran_);
    up_.restore(kept_.second, up_ran_);
    kept_ = {};
  }

 private:
  std::pair<Index, Index> draw(BasicTape<T>& tape) const {
    if (!tape.training()) return {-1, -1};
    std::pair<Index, Index> drawn;
    if (!given_.empty()) {
      drawn = given_.front();
      given_.pop_front();
    } else {
      const std::uint64_t key = tape.next_random_key();
      drawn = {static_cast<Index>((key >> 32) % static_cast<std::uint64_t>(down_.experts())),
               static_cast<Index>((key & 0xFFFFFFFFU) % static_cast<std::uint64_t>(up_.experts()))};
    }
    if (drawn.first < 0 || drawn.first >= std::max(down_.experts(), up_.experts()) ||
        drawn.second < 0 || drawn.second >= up_.experts())
      throw ValueError(
          concat("MoSA: experts ", drawn.first, " and ", drawn.second, " of ", up_.experts()));
    if (down_.experts() == 1) drawn.first = 0;
    down_ran_[static_cast<std::size_t>(drawn.first)] = true;
    up_ran_[static_cast<std::size_t>(drawn.second)] = true;
    return drawn;
  }

  std::string activation_;
  T scaling_;
  double dropout_;
  bool keeps_states_;
  detail::SplitAffine<T> down_, up_;
  detail::AddedNorm<T> norm_;
  std::pair<typename detail::SplitAffine<T>::Kept, typename detail::SplitAffine<T>::Kept> kept_;
  mutable std::deque<std::pair<Index, Index>> given_;
  mutable std::vector<BasicVar<T>> states_;
  mutable std::vector<bool> down_ran_, up_ran_;
};

/// A step changes what belongs to the experts that ran in it and nothing else, whatever momentum
/// and weight decay would do.
template <std::floating_point T>
class MoSAProcedure final : public Procedure<T> {
 public:
  explicit MoSAProcedure(std::vector<BasicMoSA<T>*> adapters) : adapters_(std::move(adapters)) {}
  void before_step(const StepInfo&) override {
    for (auto* adapter : adapters_) adapter->start_step();
  }
  void after_backward(const StepInfo&) override {
    for (auto* adapter : adapters_) adapter->keep();
  }
  void after_step(const StepInfo&) override {
    for (auto* adapter : adapters_) adapter->restore();
  }

 private:
  std::vector<BasicMoSA<T>*> adapters_;
};

/// MoSA: x₂ = x₁ + F(LN(x₁)) + s A(x₁) for the feed-forward sublayer F, A(h) = GELU(LN_a(h) Dᵀ +
/// b_D) Uᵀ + b_U, the elements of D and U split among N experts by chance, the same number each.
/// While training every pass draws an expert i for D and j for U and runs W₀ + M_i ⊙ (W − W₀), W₀
/// the value at the start; else W. Biases of the experts are their mean then (or sum).
///
/// D: [r, d], U: [d, r]; trained a block: 2 d r, (r + d) N of biases (once without expert_bias; b_D
/// once with share_down), 2 d of the norm. The identity at the start (U = 0). The loss takes two
/// passes of the batch: CE(p) + λ ½ (KL(p ‖ sg q) + KL(q ‖ sg p)), and hidden_consistency_weight
/// times the mean squared difference of the hidden states at six blocks. Not mergeable into the
/// model. Source: Zhang et al. 2024 (arXiv:2312.02923), section 3. One dense tensor with a map of
/// owners stands for the N sparse copies. Tensors: adapter_{down, up}.{weight, bias, weight_expert,
/// weight_initial}, adapter_norm.{weight, bias}.
template <std::floating_point T>
struct MoSAMethod {
  using Scalar = T;
  using Config = MoSAConfig;
  static constexpr bool kByRole = true;
  static MethodInfo info() {
    return {.peft_type = "MOSA",
            .name = "MoSA",
            .family = "bottleneck",
            .paper = "arXiv:2312.02923",
            .sites = "hidden",
            .parameters = "2 d r + num_experts (r + d) + 2 d, r = adapter_dim; the defaults",
            .mergeable = false,
            .in_peft = false};
  }
  static std::shared_ptr<HiddenPart<T>> hidden(const Config& config, const HiddenSiteInfo<T>& site,
                                               InitContext<T>& context) {
    if (site.role != HiddenRole::feed_forward) return nullptr;
    return hidden_part(BasicMoSA<T>(config, site, context));
  }
  static std::unique_ptr<Procedure<T>> procedure(const Config&,
                                                 const std::vector<PlacedPart<T>>& parts) {
    return std::make_unique<MoSAProcedure<T>>(methods_of<BasicMoSA<T>>(parts));
  }
  template <class Set>
  static void finish(const Config& config, Set& set, BasicSiteTable<T>&, InitContext<T>&) {
    const auto adapters = methods_of<BasicMoSA<T>>(set.parts());
    if (config.consistency_weight == 0 && config.hidden_consistency_weight == 0) return;
    set.set_objective([adapters, config](BasicTape<T>& tape, const TrainingPasses<T>& passes) {
      if (!tape.training()) return passes.loss();
      for (const auto* adapter : adapters) adapter->take_states();
      const auto p = passes.logits(), q = passes.logits();
      auto loss = passes.loss_of(p);
      auto real = detail::real_rows(p);
      const auto kl = add(kl_divergence(p, q.detach(), real), kl_divergence(q, p.detach(), real));
      loss = add(loss, scale(kl, static_cast<T>(config.consistency_weight / 2)));
      if (config.hidden_consistency_weight <= 0) return loss;
      const auto count = std::ssize(adapters), chosen = std::min<std::ptrdiff_t>(count, 6);
      for (std::ptrdiff_t k = 0; k < chosen; ++k) {
        const auto states =
            adapters[static_cast<std::size_t>((k + 1) * count / chosen - 1)]->take_states();
        if (states.size() != 2)
          throw ValueError("MoSA: hidden_consistency_weight needs whole batches in each pass");
        loss = add(
            loss, scale(mse(states[0], states[1]), static_cast<T>(config.hidden_consistency_weight /
                                                                  static_cast<double>(chosen))));
      }
      for (const auto* adapter : adapters) adapter->take_states();
      return loss;
    });
  }
};

}  // namespace graft::inline v0_1
