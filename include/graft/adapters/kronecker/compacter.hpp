#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "graft/adapters/kronecker/phm.hpp"

namespace graft::inline v0_1 {

/// Configuration of Compacter and Compacter++ (placement feed_forward alone).
struct CompacterConfig {
  std::vector<std::string> placement = {"attention", "feed_forward"};
  Index phm_dim = 4;
  Index phm_rank = 1;
  Index bottleneck = 0;  ///< 0: width / 32, a multiple of phm_dim, at least phm_dim
  std::string activation = "gelu_tanh";
  bool shared_phm_rule = true;        ///< one A for all projections; false: one a projection
  bool train_norms = true;            ///< all norms of the model too
  TargetModules target_modules = {};  ///< linear layers instead, each with an adapter behind it
  Selection select = {};

  static constexpr const char* kPeftType = "COMPACTER";

  template <class Visitor>
  void fields(Visitor& v) {
    v("placement", placement);
    v("phm_dim", phm_dim);
    v("phm_rank", phm_rank);
    v("bottleneck", bottleneck);
    v("activation", activation);
    v("shared_phm_rule", shared_phm_rule);
    v("train_norms", train_norms);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for sizes that cannot be, an unknown activation or place.
  void validate() const {
    if (phm_dim < 1 || phm_rank < 1 || bottleneck < 0)
      throw ValueError(concat("Compacter: phm_dim ", phm_dim, ", phm_rank ", phm_rank,
                              ", bottleneck ", bottleneck, ", expected at least 1"));
    detail::require_activation("Compacter", activation);
    detail::require_placement("Compacter", placement);
  }
};

/// up(φ(down(h))) with both projections low-rank PHM layers, A shared by all of a model.
template <std::floating_point T>
class BasicCompacterModule {
 public:
  using Scalar = T;

  BasicCompacterModule(const CompacterConfig& config, Index width, const std::string& path,
                       InitContext<T>& context)
      : activation_(config.activation) {
    const Index n = config.phm_dim, k = config.phm_rank;
    const Index m = config.bottleneck > 0 ? config.bottleneck : std::max(n, width / 32 / n * n);
    detail::require_division("Compacter", "phm_dim", n, width, path);
    detail::require_division("Compacter", "phm_dim", n, m, path);
    const auto rule = [&] {
      return detail::PHMRule<T>(n, false, config.shared_phm_rule, 1e-4, context);
    };
    down_ = {"compacter_down", rule(), detail::glorot_stack<T>(context, {n, width / n, k}),
             detail::glorot_stack<T>(context, {n, k, m / n}), detail::constant<T>({m}, 0)};
    up_ = {"compacter_up", rule(), detail::glorot_stack<T>(context, {n, m / n, k}),
           detail::glorot_stack<T>(context, {n, k, width / n}), detail::constant<T>({width}, 0)};
    shared_ = config.shared_phm_rule;
  }
  BasicVar<T> operator()(const BasicVar<T>& h) const {
    return up_(detail::apply_activation(activation_, down_(h)));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    for (const auto* side : {&down_, &up_}) {
      if (!shared_ || side == &down_) {
        const auto first = list.size();
        side->rule->list(list);
        if (!shared_)
          for (auto i = first; i < list.size(); ++i) list[i].name = side->name + "_" + list[i].name;
      }
      list.push_back(detail::named(side->name + "_S", side->s));
      list.push_back(detail::named(side->name + "_T", side->t));
      list.push_back(detail::named(side->name + "_bias", side->bias));
    }
    return list;
  }
  std::string merge_reason() const { return "a bottleneck with an activation is not linear"; }

 private:
  struct Projection {
    std::string name;
    std::optional<detail::PHMRule<T>> rule;
    BasicParameter<T> s, t, bias;
    BasicVar<T> operator()(const BasicVar<T>& x) const {
      auto& tape = x.tape();
      return add(
          detail::hypercomplex_product(x, (*rule)(tape), tape.parameter(s), tape.parameter(t)),
          tape.parameter(bias));
    }
  };
  std::string activation_;
  bool shared_ = true;
  Projection down_, up_;
};

/// Compacter: h ← h + up(φ(down(h))) at the end of the attention and the feed-forward sublayer
/// (Compacter++: of the latter alone), before the residual sum; projections are LPHM layers x Σ_i
/// A_i ⊗ (S_i T_i) + bias.
///
/// A: [n, n, n], one for the model; a site: S: [n, d/n, k], T: [n, k, m/n] and back; trained: k (d
/// + m) twice + d + m, n³ once, and the norms. At the start the identity up to about 1e-8. Not
/// mergeable. Source: Karimi Mahabadi et al. 2021 (arXiv:2106.04647), section 3. Tensors:
/// shared.phm_A, compacter_{down, up}_{S, T, bias} at the sublayer's last linear layer,
/// `<norm>.ln_tuning_layers`.{weight, bias}. Without sharing A is compacter_{down, up}_phm_A.
template <std::floating_point T>
struct CompacterMethod {
  using Scalar = T;
  using Config = CompacterConfig;
  using Module = BasicCompacterModule<T>;
  static constexpr bool kByRole = true;
  static MethodInfo info() {
    return {.peft_type = "COMPACTER",
            .name = "Compacter",
            .family = "kronecker",
            .paper = "arXiv:2106.04647",
            .sites = "hidden, linear",
            .parameters = "; 2 k (d + m) + d + m, k = phm_dim phm_rank",
            .mergeable = false,
            .in_peft = false};
  }
  static bool trains_norms(const Config& config) { return config.train_norms; }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    if (config.target_modules.empty()) return nullptr;
    return linear_part(
        SerialAdapter<Module>(Module(config, site.out_features, site.path, context)));
  }
  static std::shared_ptr<HiddenPart<T>> hidden(const Config& config, const HiddenSiteInfo<T>& site,
                                               InitContext<T>& context) {
    if (!config.target_modules.empty() || !detail::placed_at(config.placement, site.role))
      return nullptr;
    return hidden_part(
        SerialAdapter<Module>(Module(config, site.width, site.path, context), site.output + "."));
  }
  static std::shared_ptr<NormPart<T>> norm(const Config&, const NormSiteInfo<T>& site,
                                           InitContext<T>&) {
    return std::make_shared<FullNorm<T>>(site.norm, "ln_tuning_layers.");
  }
};

}  // namespace graft::inline v0_1
