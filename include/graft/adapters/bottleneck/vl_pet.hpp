#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/bottleneck/parallel.hpp"

namespace graft::inline v0_1 {

/// Configuration of VL-PET.
struct VLPETConfig {
  Index adapter_dim = 96;
  Index num_heads = 4;           ///< parts of the down projection
  std::string gate = "large";    ///< "large", "middleX", "middleY", "small" or "none"
  Index gate_dim = 96;           ///< width of the large gate
  double eta = 1.0;              ///< of the sublayer's result
  bool post_norm = true;         ///< the block normalises the residual sum; of the description only
  std::string part = "encoder";  ///< "encoder": sublayers; "decoder_value": linear layers
  TargetModules target_modules = {};  ///< the value projections, with "decoder_value"
  Selection select = {};

  static constexpr const char* kPeftType = "VL_PET";

  template <class Visitor>
  void fields(Visitor& v) {
    v("adapter_dim", adapter_dim);
    v("num_heads", num_heads);
    v("gate", gate);
    v("gate_dim", gate_dim);
    v("eta", eta);
    v("post_norm", post_norm);
    v("part", part);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for sizes below one, heads that do not divide the width, an unknown gate or
  /// part.
  void validate() const {
    if (adapter_dim < 1 || num_heads < 1 || gate_dim < 1)
      throw ValueError(concat("VL-PET: adapter_dim ", adapter_dim, ", num_heads ", num_heads,
                              ", gate_dim ", gate_dim, ", expected at least 1"));
    if (part == "encoder" && adapter_dim % num_heads != 0)
      throw ValueError(
          concat("VL-PET: ", num_heads, " heads do not divide adapter_dim ", adapter_dim));
    if (gate != "large" && gate != "middleX" && gate != "middleY" && gate != "small" &&
        gate != "none")
      throw ValueError(
          concat("VL-PET: gate '", gate,
                 "', expected \"large\", \"middleX\", \"middleY\", \"small\" or \"none\""));
    if (part != "encoder" && part != "decoder_value")
      throw ValueError(
          concat("VL-PET: part '", part, "', expected \"encoder\" or \"decoder_value\""));
    if (part == "decoder_value" && target_modules.empty())
      throw ValueError("VL-PET: the part decoder_value needs target_modules");
  }
};

/// The end of an encoder sublayer: h ← η G(x, h') ⊙ h' with h' = h + φ([h D_iᵀ + b_i]_i) Uᵀ + b_U.
template <std::floating_point T>
class BasicVLPETGate {
 public:
  using Scalar = T;

  BasicVLPETGate(const VLPETConfig& config, Index width, InitContext<T>& context)
      : gate_(config.gate), eta_(static_cast<T>(config.eta)) {
    constexpr double kStd = 0.02;
    using Affine = detail::TrainedAffine<T>;
    for (Index i = 0; i < config.num_heads; ++i)
      down_.push_back(Affine::normal(config.adapter_dim / config.num_heads, width, kStd, context));
    up_ = Affine::normal(width, config.adapter_dim, kStd, context);
    if (gate_ == "large") {
      gate_in_ = Affine::normal(config.gate_dim, width, kStd, context);
      gate_out_ = Affine::normal(width, config.gate_dim, kStd, context);
    } else if (gate_ == "middleY") {
      channel_ = detail::fresh<T>(context, {width}, [&](TorchGenerator& g, BasicTensor<T>& t) {
        g.normal(t.data(), t.size(), 0, kStd);
      });
    } else if (gate_ != "none") {
      gate_in_ = Affine::normal(1, gate_ == "small" ? 2 * width : width, kStd, context);
    }
  }
  BasicVar<T> apply(const BasicVar<T>& input, const BasicVar<T>& output,
                    const BasicVar<T>& residual) const {
    std::vector<BasicVar<T>> heads;
    for (const auto& d : down_) heads.push_back(d(output));
    const auto inner =
        heads.size() == 1 ? heads[0] : concat_along(output.shape().rank() - 1, heads);
    const auto changed = add(output, up_(detail::apply_activation("gelu_new", inner)));
    if (gate_ == "none") return scale(changed, eta_);
    return scale(mul(changed, gate(residual ? residual : input, changed)), eta_);
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    for (std::size_t i = 0; i < down_.size(); ++i)
      down_[i].list(concat("vl_pet.adapter_down.", i), list);
    up_.list("vl_pet.adapter_up", list);
    if (gate_ == "large") {
      gate_in_.list("vl_pet.gate_down", list);
      gate_out_.list("vl_pet.gate_up", list);
    } else if (gate_ == "middleY") {
      list.push_back(detail::named("vl_pet.gate", channel_));
    } else if (gate_ != "none") {
      gate_in_.list("vl_pet.gate", list);
    }
    return list;
  }

 private:
  BasicVar<T> gate(const BasicVar<T>& x, const BasicVar<T>& changed) const {
    if (gate_ == "large")
      return sigmoid(gate_out_(detail::apply_activation("gelu_new", gate_in_(x))));
    if (gate_ == "middleY") return add_scalar(x.tape().parameter(channel_), T{1});
    if (gate_ == "middleX") return sigmoid(gate_in_(add(x, changed)));
    const auto each =
        sigmoid(gate_in_(concat_along(x.shape().rank() - 1, std::vector{x, changed})));
    const auto* context = x.tape().template context<ForwardContext>();
    const int axes = x.shape().rank();
    const Index batch = axes > 2             ? x.rows() / x.shape()[axes - 2]
                        : context != nullptr ? context->batch
                                             : 1;
    if (x.rows() % batch != 0)
      throw ShapeError(concat("VL-PET: ", batch, " samples for ", x.shape().text()));
    const auto of_sample = mean_axis(reshape(each, {batch, x.rows() / batch}), 1, true);
    return reshape(broadcast_to(of_sample, {batch, x.rows() / batch}), each.shape());
  }

  std::string gate_;
  T eta_;
  std::vector<detail::TrainedAffine<T>> down_;
  detail::TrainedAffine<T> up_, gate_in_, gate_out_;
  BasicParameter<T> channel_;
};

/// VL-PET: at the end of every attention and feed-forward sublayer with residual x and result h,
///
///     h' = h + φ([h D_iᵀ + b_i]_i) Uᵀ + b_U,   x + h becomes x + η G ⊙ h',   φ = gelu_new,
///
/// G = σ(φ(x P₁ᵀ + p₁) P₂ᵀ + p₂) ("large", a number for each element), σ((x + h') wᵀ + c)
/// ("middleX", a token), 1 + g ("middleY", a channel), 1 ("none") or the mean over the tokens of
/// σ([x; h'] wᵀ + c) ("small", a sample). With part = "decoder_value", beside value projections: V
/// = e W_vᵀ + b_v
/// + φ(e Dᵀ + d) Uᵀ + u.
///
/// D_i: [r / H, d], U: [d, r], P₁: [g, d], P₂: [d, g]; trained a sublayer: 2 d r + r + d, and the
/// gate's 2 d g + g + d, d + 1, d or 2 d + 1. Not the identity at the start: σ(0) = ½ (weights N(0,
/// 0.02), biases 0). Not mergeable. Source: Hu et al. 2023 (VL-PET), section 3. Deviation: the
/// encoder's norms, which the paper trains too, are left to `BITFIT` or `LN_TUNING` beside it; the
/// mean of "small" is over padding too. Tensors: vl_pet.adapter_down.`i`.{weight, bias},
/// vl_pet.adapter_up.{weight, bias}, vl_pet.gate_down, gate_up or gate.
template <std::floating_point T>
struct VLPETMethod {
  using Scalar = T;
  using Config = VLPETConfig;
  static constexpr bool kByRole = true;
  static MethodInfo info() {
    return {.peft_type = "VL_PET",
            .name = "VL-PET",
            .family = "bottleneck",
            .paper = "arXiv:2308.09804",
            .sites = "hidden, linear",
            .parameters = "2 d r + r + d + 2 d gate_dim + gate_dim + d, r = adapter_dim",
            .mergeable = false,
            .in_peft = false,
            .identity_at_init = false};
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    if (config.part != "decoder_value") return nullptr;
    using Module = BasicBottleneck<T>;
    return linear_part(
        BasicParallelAdapter<T>(Module(site.in_features, site.out_features, config.adapter_dim,
                                       "gelu_new", Module::Start::normal, context),
                                1, false));
  }
  static std::shared_ptr<HiddenPart<T>> hidden(const Config& config, const HiddenSiteInfo<T>& site,
                                               InitContext<T>& context) {
    if (config.part != "encoder" || !detail::placed_at({"attention", "feed_forward"}, site.role))
      return nullptr;
    return hidden_part(BasicVLPETGate<T>(config, site.width, context));
  }
};

}  // namespace graft::inline v0_1
