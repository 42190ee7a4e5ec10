#pragma once

#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/effective_weight.hpp"
#include "graft/adapters/method.hpp"
#include "graft/base/splitmix.hpp"

namespace graft::inline v0_1 {

/// Configuration of Diff pruning.
struct DiffPruningConfig {
  double concrete_temperature = 1;  ///< β
  double concrete_lower = -1.5;     ///< γ
  double concrete_upper = 1.5;      ///< ζ
  double l0_weight = 1.25e-7;       ///< λ
  bool structured = false;          ///< a further gate for each weight
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "DIFF_PRUNING";

  template <class Visitor>
  void fields(Visitor& v) {
    v("concrete_temperature", concrete_temperature);
    v("concrete_lower", concrete_lower);
    v("concrete_upper", concrete_upper);
    v("l0_weight", l0_weight);
    v("structured", structured);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError unless γ < 0 < 1 < ζ and β > 0.
  void validate() const {
    if (!(concrete_lower < 0 && concrete_upper > 1 && concrete_temperature > 0))
      throw ValueError(concat("Diff pruning: limits ", concrete_lower, " and ", concrete_upper,
                              " and temperature ", concrete_temperature,
                              ", expected below 0, above 1 and positive"));
  }
};

/// Diff pruning: y = x (W + z ⊙ w)ᵀ + b with gates z = clamp(s (ζ − γ) + γ, 0, 1),
///   s = σ((log u − log(1 − u) + α) / β), u ~ U(0, 1), in training, σ(α) otherwise.
///
/// w: [out, in], zero, α: [out, in], 5, and a gate of the whole weight if structured; trained: 2
/// out in (+ 1). Auxiliary loss: λ Σ P(z > 0), P = σ(α − β log(−γ / ζ)), times that of the whole
/// weight. The identity at the start; merges with the gates of evaluation. Source: Guo et al. 2021
/// (arXiv:2012.07463), section 3. Tensors: diff_weight, log_alpha, log_alpha_group.
template <std::floating_point T>
class BasicDiffPruning {
 public:
  using Scalar = T;
  using Config = DiffPruningConfig;

  static MethodInfo info() {
    return {.peft_type = "DIFF_PRUNING",
            .name = "Diff pruning",
            .family = "selection",
            .paper = "arXiv:2012.07463",
            .sites = "linear, conv",
            .parameters = "2 out in; + 1 if structured",
            .in_peft = false};
  }

  BasicDiffPruning(const DiffPruningConfig& config, const LinearSiteInfo<T>& site, InitContext<T>&)
      : config_(config), fixed_(std::make_shared<Draws>()) {
    config.validate();
    const Shape shape{site.out_features, site.in_features};
    weight_ = BasicParameter<T>(BasicTensor<T>::zeros(shape));
    alpha_ = BasicParameter<T>(BasicTensor<T>::full(shape, T{5}));
    if (config.structured) group_ = BasicParameter<T>(BasicTensor<T>::full({1}, T{5}));
  }
  /// For a layer of one's own.
  template <Linear L>
  BasicDiffPruning(const DiffPruningConfig& config, const L& base)
      : BasicDiffPruning(config, site_info(base), StandaloneInit<T>(0).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    Draws draws = *fixed_;
    if (!draws.uniform && tape.training()) {
      draws.uniform = uniform(tape, alpha_.shape());
      if (group_) draws.group = uniform(tape, {1});
    }
    return detail::effective_weight(
        base, x,
        [draws, config = config_, weight = weight_, alpha = alpha_, group = group_,
         root = &detail::root_of(base)](BasicTape<T>& t) {
          auto change = mul(gate(config, t.parameter(alpha), draws.uniform), t.parameter(weight));
          if (group) change = mul(change, gate(config, t.parameter(group), draws.group));
          return add(change, t.constant(weight_of(*root)));
        });
  }
  BasicVar<T> auxiliary_loss(BasicTape<T>& tape) const {
    if (config_.l0_weight == 0) return {};
    const T shift = static_cast<T>(config_.concrete_temperature *
                                   std::log(-config_.concrete_lower / config_.concrete_upper));
    auto open = sum(sigmoid(add_scalar(tape.parameter(alpha_), -shift)));
    if (group_) open = mul(open, sum(sigmoid(add_scalar(tape.parameter(group_), -shift))));
    return scale(open, static_cast<T>(config_.l0_weight));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(group_ ? 3 : 2);
    list[0].name = "diff_weight";
    list[0].parameter = weight_;
    list[1].name = "log_alpha";
    list[1].parameter = alpha_;
    if (group_) {
      list[2].name = "log_alpha_group";
      list[2].parameter = group_;
    }
    return list;
  }
  /// Uses these draws from now on in place of random ones; empty: random again.
  void set_draws(BasicTensor<T> elements, BasicTensor<T> whole = {}) {
    *fixed_ = {std::move(elements), std::move(whole)};
  }

 private:
  struct Draws {
    BasicTensor<T> uniform, group;
  };
  static BasicTensor<T> uniform(BasicTape<T>& tape, const Shape& shape) {
    const std::uint64_t key = tape.next_random_key();
    auto u = BasicTensor<T>::empty(shape);
    for (Index i = 0; i < u.size(); ++i) {
      const std::uint64_t z = splitmix64(key + static_cast<std::uint64_t>(i) * kSplitMixStep);
      u[i] = static_cast<T>((static_cast<double>(z >> 40) + 0.5) / 16777216.0);
    }
    return u;
  }
  static BasicVar<T> gate(const DiffPruningConfig& config, BasicVar<T> alpha,
                          const BasicTensor<T>& u) {
    if (u) {
      auto noise = BasicTensor<T>::empty(u.shape());
      for (Index i = 0; i < u.size(); ++i) noise[i] = std::log(u[i]) - std::log1p(-u[i]);
      alpha = scale(add(alpha, alpha.tape().constant(noise)),
                    static_cast<T>(1 / config.concrete_temperature));
    }
    const T low = static_cast<T>(config.concrete_lower),
            range = static_cast<T>(config.concrete_upper) - low;
    return clamp(add_scalar(scale(sigmoid(alpha), range), low), T{0}, T{1});
  }

  DiffPruningConfig config_;
  std::shared_ptr<Draws> fixed_;
  BasicParameter<T> weight_, alpha_, group_;
};

using DiffPruning = BasicDiffPruning<float>;

}  // namespace graft::inline v0_1
