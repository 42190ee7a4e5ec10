#pragma once

#include "graft/adapters/low_rank/dora.hpp"
#include "graft/adapters/low_rank/lora.hpp"
#include "graft/adapters/low_rank/lora_embedding.hpp"
#include "graft/adapters/method.hpp"

namespace graft {

/// LoRA and the variants that share its `peft_type`, chosen by the flags of the configuration.
template <std::floating_point T>
struct LoRAMethod {
  using Scalar = T;
  using Config = LoRAConfig;
  static MethodInfo info() {
    return {.peft_type = "LORA",
            .name = "LoRA",
            .family = "low_rank",
            .paper = "arXiv:2106.09685",
            .sites = "linear, embedding, conv",
            .parameters = "r (in + out)"};
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    if (config.use_dora && !site.expert.parameter.empty())
      throw ValueError(concat("LoRA: use_dora does not exist on the parameter ",
                              site.expert.parameter, " of ", site.path));
    if (config.use_dora) return linear_part(BasicDoRA<T>(config, site, context));
    return linear_part(BasicLoRA<T>(config, site, context));
  }
  static std::shared_ptr<EmbeddingPart<T>> embedding(const Config& config,
                                                     const EmbeddingSiteInfo<T>& site,
                                                     InitContext<T>& context) {
    if (config.use_dora) return embedding_part(BasicDoRAEmbedding<T>(config, site, context));
    return embedding_part(BasicLoRAEmbedding<T>(config, site, context));
  }
};

}  // namespace graft
