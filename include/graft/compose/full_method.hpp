#pragma once

#include <algorithm>
#include <memory>
#include <string>

#include "graft/adapters/full_copy.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/target_match.hpp"
#include "graft/compose/adapter_set.hpp"
#include "graft/compose/tied_head.hpp"

namespace graft::inline v0_1 {

/// Configuration of full fine-tuning. Without target modules, everything is trained.
struct FullConfig {
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "FULL";

  template <class Visitor>
  void fields(Visitor& v) {
    v("target_modules", target_modules);
    select.fields(v);
  }
};

/// Full fine-tuning as a method: a trained copy of the weights of linear layers, embeddings and
/// norms in place of the frozen ones; the frozen model stays as it is. A head that is the embedding
/// table shares the copy. Files hold the trained weights by their names below "base_model.model.".
/// For comparison with adapters, and for a few modules that are to be trained whole. The identity
/// at the beginning; merges.
template <std::floating_point T>
struct FullMethod {
  using Scalar = T;
  using Config = FullConfig;

  static MethodInfo info() {
    return {.peft_type = "FULL",
            .name = "Full fine-tuning",
            .family = "compose",
            .paper = "",
            .sites = "linear, embedding, norm, conv",
            .parameters = "; in out (+ out)",
            .in_peft = false,
            .adds_up = false};
  }
  static bool targets(const Config&, const std::string&) { return true; }

  static void finish(const Config& config, AdapterSet<T>& set, BasicSiteTable<T>& table,
                     InitContext<T>&) {
    const auto& select = config.select;
    const auto wants = [&](const std::string& path, bool linear) {
      if (!select.exclude_modules.empty() && matches(select.exclude_modules, path)) return false;
      if (!takes_layer(select, config.target_modules, path)) return false;
      if (config.target_modules.empty()) return true;
      if (!config.target_modules.all_linear()) return matches(config.target_modules, path);
      return linear && !table.info.is_output_layer(path);
    };
    const auto place = [&](auto* site, auto part) {
      site->adapters().push_back({set.name(), part});
      set.add_part(site->path(), part);
    };
    std::shared_ptr<FullEmbedding<T>> first;
    for (auto* site : table.embedding) {
      if (!wants(site->path(), false)) continue;
      if (first && is_tied_embedding(*site, table)) {
        site->adapters().push_back({set.name(), first});
        continue;
      }
      auto part = std::make_shared<FullEmbedding<T>>(site->table().dense(), site->padding_index);
      if (site == table.embedding.front()) first = part;
      place(site, part);
    }
    for (auto* site : table.linear) {
      if (!wants(site->path(), site->conv.kernel.empty())) continue;
      if (first && is_tied_head(*site, table)) {
        place(site, std::make_shared<FullLinear<T>>(first->table(), site->base().bias()));
        continue;
      }
      place(site, std::make_shared<FullLinear<T>>(site->base().dense_weight(), site->base().bias(),
                                                  site->conv));
    }
    for (auto* site : table.norm)
      if (wants(site->path(), false)) place(site, std::make_shared<FullNorm<T>>(site->norm()));
    if (set.parts().empty()) throw ValueError("FULL: the target modules match no module");
  }
};

template <std::floating_point T>
using FullMethods = MethodList<FullMethod<T>>;

}  // namespace graft::inline v0_1
