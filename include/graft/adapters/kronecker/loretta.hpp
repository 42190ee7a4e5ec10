#pragma once

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "graft/adapters/kronecker/tensor_train.hpp"

namespace graft::inline v0_1 {

/// Configuration of LoRETTA_adp, bottleneck adapters of tensor trains.
struct LoRETTAAdapterConfig {
  Index bottleneck = 64;
  Index tensor_rank = 5;
  std::vector<Index> down_modes = {};  ///< empty: a balanced choice
  std::vector<Index> up_modes = {};
  std::string activation = "relu";
  bool zero_last_core = true;  ///< begins as the identity; false: all random, as the program does
  std::vector<std::string> placement = {"attention", "feed_forward"};
  bool train_norms = true;            ///< all norms of the model too
  TargetModules target_modules = {};  ///< linear layers instead, each with an adapter behind it
  Selection select = {};

  static constexpr const char* kPeftType = "LORETTA_ADP";

  template <class Visitor>
  void fields(Visitor& v) {
    v("bottleneck", bottleneck);
    v("tensor_rank", tensor_rank);
    nullable_field(v, "down_modes", down_modes);
    nullable_field(v, "up_modes", up_modes);
    v("activation", activation);
    v("zero_last_core", zero_last_core);
    v("placement", placement);
    v("train_norms", train_norms);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for sizes below one, an unknown activation or place.
  void validate() const {
    if (bottleneck < 1 || tensor_rank < 1)
      throw ValueError(concat("LoRETTA: bottleneck ", bottleneck, ", tensor_rank ", tensor_rank,
                              ", expected at least 1"));
    detail::require_activation("LoRETTA", activation);
    detail::require_placement("LoRETTA", placement);
  }
};

/// φ(h D + δ) E + ε with D: [d, m] and E: [m, d] tensor trains.
template <std::floating_point T>
class BasicTensorTrainBottleneck {
 public:
  using Scalar = T;

  BasicTensorTrainBottleneck(const LoRETTAAdapterConfig& config, Index width,
                             InitContext<T>& context)
      : activation_(config.activation),
        down_("LoRETTA", "loretta_down", width, config.bottleneck, config.down_modes,
              config.tensor_rank, false, context),
        up_("LoRETTA", "loretta_up", config.bottleneck, width, config.up_modes, config.tensor_rank,
            config.zero_last_core, context) {
    const auto bias = [&](Index size, bool zero) {
      const double bound = 1 / std::sqrt(static_cast<double>(size));
      return detail::fresh<T>(context, {size}, [&](TorchGenerator& g, BasicTensor<T>& t) {
        if (!zero) g.uniform(t.data(), t.size(), -bound, bound);
      });
    };
    down_bias_ = bias(config.bottleneck, false);
    up_bias_ = bias(width, config.zero_last_core);
  }
  BasicVar<T> operator()(const BasicVar<T>& h) const {
    auto& tape = h.tape();
    const auto inner = detail::apply_activation(
        activation_, add(matmul(h, down_(tape)), tape.parameter(down_bias_)));
    return add(matmul(inner, up_(tape)), tape.parameter(up_bias_));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    down_.list(list);
    up_.list(list);
    list.push_back(detail::named("loretta_down_bias", down_bias_));
    list.push_back(detail::named("loretta_up_bias", up_bias_));
    return list;
  }
  std::string merge_reason() const {
    return detail::is_identity(activation_) ? "" : "a bottleneck with an activation is not linear";
  }

 private:
  std::string activation_;
  detail::TensorTrain<T> down_, up_;
  BasicParameter<T> down_bias_, up_bias_;
};

/// LoRETTA_adp: h ← h + φ(h D + δ) E + ε at the end of the attention and the feed-forward sublayer,
/// before the residual sum, D and E tensor trains of rank R.
///
/// Cores: [r_j, n_j, r_j+1], entries N(0, 1) scaled so that those of D have variance 1 / (d + m);
/// trained: Σ r_j n_j r_j+1 twice + m + d, and the norms. The identity at the start with
/// zero_last_core. Not mergeable. Source: Yang et al. 2024 (arXiv:2402.11417), section 3.2.
/// Tensors: `loretta_down.<j>`, `loretta_up.<j>`, loretta_down_bias, loretta_up_bias at the
/// sublayer's last linear layer, `<norm>.ln_tuning_layers`.{weight, bias}.
template <std::floating_point T>
struct LoRETTAAdapterMethod {
  using Scalar = T;
  using Config = LoRETTAAdapterConfig;
  using Module = BasicTensorTrainBottleneck<T>;
  static constexpr bool kByRole = true;
  static MethodInfo info() {
    return {.peft_type = "LORETTA_ADP",
            .name = "LoRETTA adapter",
            .family = "kronecker",
            .paper = "arXiv:2402.11417",
            .sites = "hidden, linear",
            .parameters = "; cores + m + d",
            .mergeable = false,
            .in_peft = false};
  }
  static bool trains_norms(const Config& config) { return config.train_norms; }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    if (config.target_modules.empty()) return nullptr;
    return linear_part(SerialAdapter<Module>(Module(config, site.out_features, context)));
  }
  static std::shared_ptr<HiddenPart<T>> hidden(const Config& config, const HiddenSiteInfo<T>& site,
                                               InitContext<T>& context) {
    if (!config.target_modules.empty() || !detail::placed_at(config.placement, site.role))
      return nullptr;
    return hidden_part(
        SerialAdapter<Module>(Module(config, site.width, context), site.output + "."));
  }
  static std::shared_ptr<NormPart<T>> norm(const Config&, const NormSiteInfo<T>& site,
                                           InitContext<T>&) {
    return std::make_shared<FullNorm<T>>(site.norm, "ln_tuning_layers.");
  }
};

/// Configuration of LoRETTA_rep, LoRA whose factors are tensor trains.
struct LoRETTALowRankConfig {
  Index rank = 8;
  double lora_alpha = 16;  ///< scaling = lora_alpha / r
  Index tensor_rank = 5;
  std::vector<Index> a_modes = {};  ///< empty: a balanced choice
  std::vector<Index> b_modes = {};
  bool zero_last_core = true;  ///< begins as the identity; false: all random, as the program does
  double lora_dropout = 0;     ///< of the input
  bool train_norms = true;     ///< all norms of the model too
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "LORETTA_REP";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("lora_alpha", lora_alpha);
    v("tensor_rank", tensor_rank);
    nullable_field(v, "a_modes", a_modes);
    nullable_field(v, "b_modes", b_modes);
    v("zero_last_core", zero_last_core);
    v("lora_dropout", lora_dropout);
    v("train_norms", train_norms);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for ranks below one or a dropout outside of [0, 1).
  void validate() const {
    if (rank < 1 || tensor_rank < 1)
      throw ValueError(
          concat("LoRETTA: r ", rank, ", tensor_rank ", tensor_rank, ", expected at least 1"));
    if (!(lora_dropout >= 0 && lora_dropout < 1))
      throw ValueError(concat("LoRETTA: lora_dropout ", lora_dropout, ", expected in [0, 1)"));
  }
};

/// LoRETTA_rep: y = base(x) + (α / r) (x P) Q, P: [in, r] and Q: [r, out] tensor trains of rank R.
///
/// Cores as in LoRETTA_adp; trained: Σ r_j n_j r_j+1 of both, and the norms. The identity at the
/// start with zero_last_core; merges. Source: Yang et al. 2024 (arXiv:2402.11417), section 3.3;
/// deviations: its program draws the last core of Q too, and drops 5 % of the input. Tensors:
/// `loretta_A.<j>`, `loretta_B.<j>`.
template <std::floating_point T>
class BasicLoRETTALowRank {
 public:
  using Scalar = T;
  using Config = LoRETTALowRankConfig;

  BasicLoRETTALowRank(const Config& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : scaling_(static_cast<T>(config.lora_alpha / static_cast<double>(config.rank))),
        dropout_(config.lora_dropout),
        p_("LoRETTA", "loretta_A", site.in_features, config.rank, config.a_modes,
           config.tensor_rank, false, context),
        q_("LoRETTA", "loretta_B", config.rank, site.out_features, config.b_modes,
           config.tensor_rank, config.zero_last_core, context) {}
  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto h = scale(matmul(dropout(x, dropout_), p_(tape)), scaling_);
    return add(linear(base, x), matmul(h, q_(tape)));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    p_.list(list);
    q_.list(list);
    return list;
  }

 private:
  T scaling_;
  double dropout_;
  detail::TensorTrain<T> p_, q_;
};

template <std::floating_point T>
struct LoRETTALowRankMethod {
  using Scalar = T;
  using Config = LoRETTALowRankConfig;
  static MethodInfo info() {
    return {.peft_type = "LORETTA_REP",
            .name = "LoRETTA",
            .family = "kronecker",
            .paper = "arXiv:2402.11417",
            .sites = "linear",
            .parameters = "; cores of both factors",
            .in_peft = false};
  }
  static bool trains_norms(const Config& config) { return config.train_norms; }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    return linear_part(BasicLoRETTALowRank<T>(config, site, context));
  }
  static std::shared_ptr<NormPart<T>> norm(const Config&, const NormSiteInfo<T>& site,
                                           InitContext<T>&) {
    return std::make_shared<FullNorm<T>>(site.norm, "ln_tuning_layers.");
  }
};

}  // namespace graft::inline v0_1
