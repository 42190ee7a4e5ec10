#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "graft/adapters/method.hpp"
#include "graft/adapters/named_activation.hpp"
#include "graft/adapters/sublayer.hpp"

namespace graft::inline v0_1 {

/// Configuration of side tuning.
struct SideTuningConfig {
  Index side_hidden = 64;
  std::string non_linearity = "gelu";
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "SIDE_TUNING";

  template <class Visitor>
  void fields(Visitor& v) {
    v("side_hidden", side_hidden);
    v("non_linearity", non_linearity);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for a width below one or an unknown activation.
  void validate() const {
    if (side_hidden < 1) throw ValueError(concat("side tuning: side_hidden ", side_hidden));
    detail::require_activation("side tuning", non_linearity);
  }
};

/// Side tuning: y = a F(x) + (1 − a) S(x), a = σ(θ), F the frozen layer, S a small network of its
/// own, S(x) = φ(x W₁ᵀ + b₁) W₂ᵀ + b₂.
///
/// W₁: [h, in], W₂: [out, h], θ: [1], zero (a = ½); trained: h (in + out + 1) + out + 1. No
/// gradient goes through F, so that nothing below it keeps activations: x has the gradient of S
/// alone. Not the identity at the start, cannot be merged. Deviation: S starts at random, as a
/// fresh Linear; the paper distils it from F or copies a small trained network, which loading does.
/// Source: Zhang et al. 2020 (arXiv:1912.13503). Tensors: side.{0, 2}.{weight, bias},
/// side_alpha.
template <std::floating_point T>
class BasicSideTuning {
 public:
  using Scalar = T;
  using Config = SideTuningConfig;

  static MethodInfo info() {
    return {.peft_type = "SIDE_TUNING",
            .name = "Side tuning",
            .family = "memory",
            .paper = "arXiv:1912.13503",
            .sites = "linear",
            .parameters = "h (in + out + 1) + out + 1, h = side_hidden",
            .mergeable = false,
            .in_peft = false,
            .identity_at_init = false,
            .exact_gradient = false};
  }

  BasicSideTuning(const SideTuningConfig& config, const LinearSiteInfo<T>& site,
                  InitContext<T>& context)
      : activation_((config.validate(), config.non_linearity)) {
    const Index h = config.side_hidden, in = site.in_features, out = site.out_features;
    down_ = detail::linear_default(context, {h, in}, in);
    down_bias_ = detail::linear_default(context, {h}, in);
    up_ = detail::linear_default(context, {out, h}, h);
    up_bias_ = detail::linear_default(context, {out}, h);
    alpha_ = detail::constant<T>({1}, 0);
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicSideTuning(const SideTuningConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicSideTuning(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    const auto h = detail::apply_activation(activation_, affine(x, down_, down_bias_));
    const auto side = affine(h, up_, up_bias_);
    const auto frozen = linear(base, x.detach());
    return add(side, mul(sub(frozen, side), sigmoid(x.tape().parameter(alpha_))));
  }
  std::string merge_reason() const {
    return "side tuning adds a network with a non-linearity, which is no change of a weight";
  }
  std::vector<AdapterTensor<T>> tensors() const {
    return {detail::named("side.0.weight", down_), detail::named("side.0.bias", down_bias_),
            detail::named("side.2.weight", up_), detail::named("side.2.bias", up_bias_),
            detail::named("side_alpha", alpha_)};
  }

 private:
  std::string activation_;
  BasicParameter<T> down_, down_bias_, up_, up_bias_, alpha_;
};

using SideTuning = BasicSideTuning<float>;

}  // namespace graft::inline v0_1
