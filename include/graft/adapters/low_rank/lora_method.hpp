#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "graft/adapters/low_rank/alora.hpp"
#include "graft/adapters/low_rank/arrow.hpp"
#include "graft/adapters/low_rank/bdlora.hpp"
#include "graft/adapters/low_rank/dora.hpp"
#include "graft/adapters/low_rank/kasa.hpp"
#include "graft/adapters/low_rank/lora.hpp"
#include "graft/adapters/low_rank/lora_embedding.hpp"
#include "graft/adapters/low_rank/lora_qalora.hpp"
#include "graft/adapters/low_rank/monteclora.hpp"
#include "graft/adapters/low_rank/velora.hpp"
#include "graft/adapters/method.hpp"

namespace graft::inline v0_1 {

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
    const auto variants = config.variants();
    const std::string variant = variants.empty() ? "" : variants[0];
    if (variant == "use_dora") return linear_part(BasicDoRA<T>(config, site, context));
    if (variant == "use_qalora") return linear_part(BasicLoRAQA<T>(config, site, context));
    if (variant == "use_bdlora") return linear_part(BasicBDLoRA<T>(config, site, context));
    if (variant == "alora_invocation_tokens")
      return linear_part(BasicALoRA<T>(config, site, context));
    if (variant == "velora_config") return linear_part(BasicVeLoRA<T>(config, site, context));
    if (variant == "kasa_config") return linear_part(BasicKaSA<T>(config, site, context));
    if (variant == "monteclora_config")
      return linear_part(BasicMonteCLoRA<T>(config, site, context));
    if (variant == "arrow_config") return linear_part(BasicArrow<T>(config, site, context));
    return linear_part(BasicLoRA<T>(config, site, context));
  }
  static std::shared_ptr<EmbeddingPart<T>> embedding(const Config& config,
                                                     const EmbeddingSiteInfo<T>& site,
                                                     InitContext<T>& context) {
    for (const auto& variant : config.variants())
      if (variant != "use_dora" && variant.find("mica") == std::string::npos)
        throw ValueError(concat("LoRA: ", variant, " does not exist on the embedding ", site.path));
    if (config.use_dora) return embedding_part(BasicDoRAEmbedding<T>(config, site, context));
    return embedding_part(BasicLoRAEmbedding<T>(config, site, context));
  }
  /// An Arrow router finds its experts among the other adapters of its sites.
  template <class Set, class Table>
  static void finish(const Config& config, Set& set, Table& table, InitContext<T>&) {
    if (config.arrow_config.is_null()) return;
    for (auto* site : table.linear) {
      const auto terms = [&](const std::vector<std::string>& names) {
        std::vector<LowRankTerm<T>> list;
        for (const auto& name : names) {
          std::optional<LowRankTerm<T>> term;
          for (const auto& named : site->adapters())
            if (named.name == name)
              if (const auto* part = dynamic_cast<const LinearPart<T>*>(named.adapter.get()))
                term = part->low_rank_term();
          if (!term)
            throw ValueError(concat("Arrow: '", name, "' has no plain LoRA at ", site->path()));
          list.push_back(*term);
        }
        return list;
      };
      for (const auto& placed : set.parts()) {
        if (placed.path != site->path()) continue;
        auto* router = method_of<BasicArrow<T>>(placed.part.get());
        if (router == nullptr) continue;
        const auto& options = router->options();
        router->set_experts(terms(options.task_adapters), options.subtract_general
                                                              ? terms(options.general_adapters)
                                                              : std::vector<LowRankTerm<T>>());
      }
    }
  }
};

}  // namespace graft::inline v0_1
