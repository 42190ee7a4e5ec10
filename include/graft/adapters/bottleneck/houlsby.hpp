#pragma once

#include <memory>
#include <string>

#include "graft/adapters/bottleneck/bottleneck.hpp"

namespace graft::inline v0_1 {

/// Configuration of Houlsby adapters.
struct HoulsbyConfig {
  Index adapter_dim = 64;
  std::string non_linearity = "swish";  ///< as the transformers library calls them, or "identity"
  bool train_layer_norm = false;        ///< all norms of the model too, as the paper does
  std::vector<std::string> placement = {"attention", "feed_forward"};
  TargetModules target_modules = {};  ///< linear layers instead, each with an adapter behind it
  Selection select = {};

  static constexpr const char* kPeftType = "HOULSBY";

  template <class Visitor>
  void fields(Visitor& v) {
    v("adapter_dim", adapter_dim);
    v("non_linearity", non_linearity);
    v("train_layer_norm", train_layer_norm);
    v("placement", placement);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for a width below one, an unknown activation or place.
  void validate() const {
    if (adapter_dim < 1)
      throw ValueError(concat("Houlsby: adapter_dim ", adapter_dim, ", expected at least 1"));
    detail::require_activation("Houlsby", non_linearity);
    detail::require_placement("Houlsby", placement);
  }
};

/// Houlsby adapters: h ← h + φ(h Dᵀ + b_D) Uᵀ + b_U at the end of the attention and of the
/// feed-forward sublayer, before the residual sum; or behind linear layers that `target_modules`
/// names.
///
/// D: [r, d], U: [d, r]; trained a site: 2 d r + r + d, and the norms with train_layer_norm. Near
/// the identity at the start (N(0, 0.02), biases 0). Merges only behind a linear layer with the
/// identity as φ: W ← (I + U D) W. Source: Houlsby et al. 2019 (arXiv:1902.00751), section 2.1; the
/// start and swish are those of the adapters library, the paper truncates N(0, 0.01) and takes
/// GELU. Tensors: adapter_down.{weight, bias}, adapter_up.{weight, bias}, `<norm>`.{weight, bias}.
template <std::floating_point T>
struct HoulsbyMethod {
  using Scalar = T;
  using Config = HoulsbyConfig;
  static constexpr bool kByRole = true;
  static MethodInfo info() {
    return {.peft_type = "HOULSBY",
            .name = "Houlsby adapter",
            .family = "bottleneck",
            .paper = "arXiv:1902.00751",
            .sites = "hidden, linear",
            .parameters = "2 d r + r + d, r = adapter_dim",
            .mergeable = false,
            .in_peft = false,
            .identity_at_init = false};
  }
  static bool trains_norms(const Config& config) { return config.train_layer_norm; }
  static SerialAdapter<BasicBottleneck<T>> make(const Config& config, Index width,
                                                InitContext<T>& context) {
    using Module = BasicBottleneck<T>;
    return SerialAdapter<Module>(Module(width, width, config.adapter_dim, config.non_linearity,
                                        Module::Start::normal, context));
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    if (config.target_modules.empty()) return nullptr;
    return linear_part(make(config, site.out_features, context));
  }
  static std::shared_ptr<HiddenPart<T>> hidden(const Config& config, const HiddenSiteInfo<T>& site,
                                               InitContext<T>& context) {
    if (!config.target_modules.empty() || !detail::placed_at(config.placement, site.role))
      return nullptr;
    return hidden_part(make(config, site.width, context));
  }
  static std::shared_ptr<NormPart<T>> norm(const Config&, const NormSiteInfo<T>& site,
                                           InitContext<T>&) {
    return std::make_shared<FullNorm<T>>(site.norm);
  }
};

}  // namespace graft::inline v0_1
