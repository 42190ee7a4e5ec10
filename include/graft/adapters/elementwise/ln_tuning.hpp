#pragma once

#include <memory>

#include "graft/adapters/full_copy.hpp"
#include "graft/adapters/method.hpp"

namespace graft::inline v0_1 {

/// Configuration of LN tuning, fields as PEFT's LNTuningConfig.
struct LNTuningConfig {
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "LN_TUNING";

  template <class Visitor>
  void fields(Visitor& v) {
    v("target_modules", target_modules);
    v("exclude_modules", select.exclude_modules);
    v("modules_to_save", select.modules_to_save);
  }
};

/// LN tuning: y = norm(x) with weight and bias of its own, which begin as the frozen ones.
///
/// Trained: width, or twice that where the norm has a bias. A linear layer or an embedding that the
/// configuration names is trained whole likewise, as in PEFT. The identity at the start; merges by
/// replacing the module. Only one such adapter acts at a time. Source: Zhao et al. 2023
/// (arXiv:2312.11420), section 3. Tensors: ln_tuning_layers.weight, ln_tuning_layers.bias.
template <std::floating_point T>
struct LNTuningMethod {
  using Scalar = T;
  using Config = LNTuningConfig;
  static MethodInfo info() {
    return {.peft_type = "LN_TUNING",
            .name = "LN tuning",
            .family = "elementwise",
            .paper = "arXiv:2312.11420",
            .sites = "norm, linear, embedding, conv",
            .parameters = "in out + bias out",
            .adds_up = false};
  }
  static std::shared_ptr<NormPart<T>> norm(const Config&, const NormSiteInfo<T>& site,
                                           InitContext<T>&) {
    return std::make_shared<FullNorm<T>>(site.norm, kPrefix);
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config&, const LinearSiteInfo<T>& site,
                                               InitContext<T>&) {
    if (site.conv.groups > 1)
      throw ValueError(
          concat("LN tuning: the grouped convolution ", site.path, " is not supported"));
    return std::make_shared<FullLinear<T>>(site.weight(), site.bias, site.conv, site.fan_in_fan_out,
                                           kPrefix);
  }
  static std::shared_ptr<EmbeddingPart<T>> embedding(const Config&,
                                                     const EmbeddingSiteInfo<T>& site,
                                                     InitContext<T>&) {
    return std::make_shared<FullEmbedding<T>>(site.table(), site.padding_index, kPrefix);
  }
  static constexpr const char* kPrefix = "ln_tuning_layers.";
};

}  // namespace graft::inline v0_1
