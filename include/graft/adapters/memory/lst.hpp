#pragma once

#include <memory>
#include <string>
#include <vector>

#include "graft/adapters/memory/side_stack.hpp"

namespace graft::inline v0_1 {

/// Configuration of ladder side-tuning.
struct LSTConfig {
  Index reduction_factor = 8;           ///< ρ
  double gate_temperature = 0.1;        ///< T
  bool gated = true;                    ///< false: μ is ½
  double dropout = 0;                   ///< of the states that the first projection reads
  std::vector<Index> side_layers = {};  ///< blocks that a side block stands beside; empty: all

  static constexpr const char* kPeftType = "LST";

  template <class Visitor>
  void fields(Visitor& v) {
    v("reduction_factor", reduction_factor);
    v("gate_temperature", gate_temperature);
    v("gated", gated);
    v("dropout", dropout);
    v("side_layers", side_layers);
  }
  /// @throws ValueError for a factor below one or a temperature of zero
  void validate() const {
    if (reduction_factor < 1 || gate_temperature == 0)
      throw ValueError(concat("LST: reduction_factor ", reduction_factor, ", gate_temperature ",
                              gate_temperature));
  }
};

/// The ladder of LST on one model.
template <std::floating_point T>
class LSTStack final : public detail::SideStack<T> {
 public:
  LSTStack(const LSTConfig& config, const std::string& name, const BasicSiteTable<T>& table,
           InitContext<T>& context)
      : detail::SideStack<T>("LST", "ladder.", name, config.reduction_factor, config.side_layers,
                             table, context),
        config_(config) {
    const Index d = table.info.hidden_size, s = this->width();
    for (Index l = 0; l <= this->side_blocks(); ++l) {
      down_.push_back(this->put(concat("downsample.", l, ".weight"),
                                detail::linear_default(context, {s, d}, d)));
      down_bias_.push_back(
          this->put(concat("downsample.", l, ".bias"), detail::linear_default(context, {s}, d)));
    }
    for (Index l = 0; config.gated && l < this->side_blocks(); ++l)
      gate_.push_back(this->put(concat("gate.", l), detail::constant<T>({1}, 0)));
    up_ = this->put("upsample.weight", detail::linear_default(context, {d, s}, s));
    up_bias_ = this->put("upsample.bias", detail::linear_default(context, {d}, s));
  }

 private:
  BasicVar<T> first(const BasicVar<T>& h) const override {
    return affine(dropout(h, config_.dropout), down_[0], down_bias_[0]);
  }
  BasicVar<T> mix(Index l, const BasicVar<T>& s, const BasicVar<T>& h) const override {
    const auto i = static_cast<std::size_t>(l);
    const auto read = affine(h, down_[i + 1], down_bias_[i + 1]);
    if (!config_.gated) return scale(add(s, read), static_cast<T>(0.5));
    const auto mu =
        sigmoid(scale(s.tape().parameter(gate_[i]), static_cast<T>(1 / config_.gate_temperature)));
    return add(read, mul(sub(s, read), mu));
  }
  BasicVar<T> mixed(const BasicVar<T>& s, const BasicVar<T>&) const override {
    return affine(s, up_, up_bias_);
  }

  LSTConfig config_;
  std::vector<BasicParameter<T>> down_, down_bias_, gate_;
  BasicParameter<T> up_, up_bias_;
};

/// Ladder side-tuning: a narrow stack of blocks beside the frozen model gives its head the hidden
/// state.
///
///     s_0 = drop(h_0) P_0ᵀ + p_0;  μ_l = σ(α_l / T)
///     s_l = SideBlock_l(μ_l s_{l−1} + (1 − μ_l)(h_l P_lᵀ + p_l)),  l = 1 … L
///     z = norm(s_L) Uᵀ + u in place of the model's last hidden state
///
/// h_0: input of the first block, h_l: output of block l, both read without a gradient, so that
/// nothing of the model is kept for the backward pass; [batch · tokens, d]. P_l: [d/ρ, d], α_l:
/// [1], zero, U: [d, d/ρ]; the side blocks are of the model's kind with all widths over ρ and as
/// many heads, and begin as parts of the model's own (see detail::SideStack). The norm is the last
/// one of the model's kind. Trained: (L + 1)(d²/ρ + d/ρ) + L + d²/ρ + d, the side blocks and the
/// norm. Not the identity, cannot be merged. Generates from a cache of its own, one text at a time.
/// Models: BERT- and LLaMA-like ones. Source: Sung et al. 2022 (arXiv:2206.06522). Deviation:
/// importance is the sum of squared weights (the paper: squared gradients). Tensors:
/// shared.ladder.{downsample.l, layer(s).l.…, gate.l, norm, upsample}.
template <std::floating_point T>
struct LSTMethod {
  using Scalar = T;
  using Config = LSTConfig;

  static Config example() { return {.reduction_factor = 2}; }
  static MethodInfo info() {
    return {.peft_type = "LST",
            .name = "Ladder side-tuning",
            .family = "memory",
            .paper = "arXiv:2206.06522",
            .sites = "blocks",
            .parameters = "; (L + 1)(d + 1) d/ρ + L + d (d/ρ + 1), the side blocks and a norm",
            .mergeable = false,
            .in_peft = false,
            .identity_at_init = false,
            .adds_up = false};
  }
  template <class Set>
  static void finish(const Config& config, Set& set, BasicSiteTable<T>& table,
                     InitContext<T>& context) {
    config.validate();
    detail::add_side_stack<T>(std::make_shared<LSTStack<T>>(config, set.name(), table, context),
                              set, table);
  }
};

}  // namespace graft::inline v0_1
