#pragma once

#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/effective_weight.hpp"
#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"

/// Adapters that a learned score switches on and off.
namespace graft::inline v0_1 {

/// Configuration of TAPS.
struct TAPSConfig {
  double threshold = 0.1;
  double sparsity_weight = 1;
  double init_score = 0.15;
  bool adapt_bias = false;
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "TAPS";

  template <class Visitor>
  void fields(Visitor& v) {
    v("threshold", threshold);
    v("sparsity_weight", sparsity_weight);
    v("init_score", init_score);
    v("adapt_bias", adapt_bias);
    v("target_modules", target_modules);
    select.fields(v);
  }
};

/// Configuration of selective LoRA.
struct SelectiveLoRAConfig {
  Index rank = 8;
  double alpha = 16;
  double dropout = 0;
  double threshold = 0.1;
  double sparsity_weight = 1;
  double init_score = 0.15;
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "SELECTIVE_LORA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("lora_alpha", alpha);
    v("lora_dropout", dropout);
    v("threshold", threshold);
    v("sparsity_weight", sparsity_weight);
    v("init_score", init_score);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for a rank below one.
  void validate() const {
    if (rank < 1) throw ValueError(concat("selective LoRA: r ", rank, ", expected at least 1"));
  }
};

namespace detail {

/// A score ς with the switch 1[ς ≥ τ], whose gradient passes unchanged, and its share of the loss
/// λ · mean |ς|.
template <std::floating_point T>
class Switch {
 public:
  Switch(double threshold, double weight, double start, const LinearSiteInfo<T>& site)
      : threshold_(static_cast<T>(threshold)),
        weight_(static_cast<T>(
            weight / static_cast<double>(std::max<std::size_t>(1, site.all_sites.size())))),
        score_(BasicTensor<T>::full({1}, static_cast<T>(start))) {}
  BasicVar<T> operator()(BasicTape<T>& tape) const {
    return unary(
        tape.parameter(score_), [t = threshold_](T v) { return v >= t ? T{1} : T{0}; },
        [](T, T) { return T{1}; });
  }
  BasicVar<T> loss(BasicTape<T>& tape) const {
    if (weight_ == T{0}) return {};
    return scale(sum(abs(tape.parameter(score_))), weight_);
  }
  const BasicParameter<T>& score() const { return score_; }

 private:
  T threshold_, weight_;
  BasicParameter<T> score_;
};

}  // namespace detail

/// TAPS: y = x (W + 1[ς ≥ τ] δ)ᵀ + b + 1[ς ≥ τ] δ_b, a change of the whole weight that a score
/// switches.
///
/// δ: [out, in], δ_b: [out] with `adapt_bias`, zero; ς: [1]; trained: out in (+ out) + 1. The
/// gradient of ς is Σ ∂L/∂W' ⊙ δ in both states. Auxiliary loss: λ · mean |ς| over the adapted
/// layers. The identity at the start; merges. Source: Wallingford et al. 2022 (arXiv:2203.16708),
/// eq. 3 to 5; the released code divides by its number of layers. Tensors: taps_weight, taps_bias,
/// taps_score.
template <std::floating_point T>
class BasicTAPS {
 public:
  using Scalar = T;
  using Config = TAPSConfig;

  static MethodInfo info() {
    return {.peft_type = "TAPS",
            .name = "TAPS",
            .family = "low_rank",
            .paper = "arXiv:2203.16708",
            .sites = "linear, conv",
            .parameters = "out in + 1; + out with adapt_bias",
            .in_peft = false,
            .exact_gradient = false};
  }

  BasicTAPS(const TAPSConfig& config, const LinearSiteInfo<T>& site, InitContext<T>&)
      : switch_(config.threshold, config.sparsity_weight, config.init_score, site),
        weight_(BasicTensor<T>::zeros({site.out_features, site.in_features})) {
    if (config.adapt_bias) bias_ = BasicParameter<T>(BasicTensor<T>::zeros({site.out_features}));
  }
  /// For a layer of one's own.
  template <Linear L>
  BasicTAPS(const TAPSConfig& config, const L& base)
      : BasicTAPS(config, site_info(base), StandaloneInit<T>(0).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto y = detail::effective_weight(
        base, x, [on = switch_, weight = weight_, root = &detail::root_of(base)](BasicTape<T>& t) {
          return add(mul(t.parameter(weight), on(t)), t.constant(weight_of(*root)));
        });
    return bias_ ? add(y, mul(tape.parameter(bias_), switch_(tape))) : y;
  }
  BasicVar<T> auxiliary_loss(BasicTape<T>& tape) const { return switch_.loss(tape); }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(bias_ ? 3 : 2);
    list[0].name = "taps_weight";
    list[0].parameter = weight_;
    list[1].name = "taps_score";
    list[1].parameter = switch_.score();
    if (bias_) {
      list[2].name = "taps_bias";
      list[2].parameter = bias_;
    }
    return list;
  }

 private:
  detail::Switch<T> switch_;
  BasicParameter<T> weight_, bias_;
};

/// Selective LoRA: y = base(x) + 1[ς ≥ τ] · s · (drop(x) Aᵀ) Bᵀ.
///
/// Trained: r (in + out) + 1. The gradient of ς is Σ G ⊙ (s x Aᵀ Bᵀ) in both states. Auxiliary
/// loss: λ · mean |ς|. The identity at the start (B = 0); merges. Source: Bafghi et al. 2025
/// (arXiv:2501.15377), section 3; threshold, weight and first score are TAPS's. Tensors:
/// lora_A.weight, lora_B.weight, lora_score.
template <std::floating_point T>
class BasicSelectiveLoRA {
 public:
  using Scalar = T;
  using Config = SelectiveLoRAConfig;

  static MethodInfo info() {
    return {.peft_type = "SELECTIVE_LORA",
            .name = "Selective LoRA",
            .family = "low_rank",
            .paper = "arXiv:2501.15377",
            .sites = "linear",
            .parameters = "r (in + out) + 1",
            .in_peft = false,
            .exact_gradient = false};
  }

  BasicSelectiveLoRA(const SelectiveLoRAConfig& config, const LinearSiteInfo<T>& site,
                     InitContext<T>& context)
      : scaling_(static_cast<T>(config.alpha / static_cast<double>(config.rank))),
        dropout_(config.dropout),
        switch_(config.threshold, config.sparsity_weight, config.init_score, site) {
    config.validate();
    const Index r = config.rank, in = site.in_features;
    a_ = BasicParameter<T>(detail::kaiming_uniform_tensor<T>(context, {r, in}, in));
    b_ = BasicParameter<T>(BasicTensor<T>::zeros({site.out_features, r}));
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicSelectiveLoRA(const SelectiveLoRAConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicSelectiveLoRA(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    // On B the switch costs least.
    const auto b = mul(tape.parameter(b_), switch_(tape));
    return linear_low_rank(base, x, graft::dropout(x, dropout_), tape.parameter(a_), b, scaling_);
  }
  BasicVar<T> auxiliary_loss(BasicTape<T>& tape) const { return switch_.loss(tape); }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(3);
    list[0].name = "lora_A.weight";
    list[0].parameter = a_;
    list[1].name = "lora_B.weight";
    list[1].parameter = b_;
    list[2].name = "lora_score";
    list[2].parameter = switch_.score();
    return list;
  }

 private:
  T scaling_;
  double dropout_;
  detail::Switch<T> switch_;
  BasicParameter<T> a_, b_;
};

using TAPS = BasicTAPS<float>;
using SelectiveLoRA = BasicSelectiveLoRA<float>;

}  // namespace graft::inline v0_1
