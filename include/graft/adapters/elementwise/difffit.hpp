#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/elementwise/bitfit.hpp"
#include "graft/adapters/full_copy.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/target_match.hpp"

namespace graft::inline v0_1 {

/// Configuration of DiffFit.
struct DiffFitConfig {
  /// Blocks with trained scales: "first_half", "all", or a list of block numbers.
  ConfigValue blocks = "first_half";
  bool train_bias = true;
  bool train_norms = true;
  bool train_class_embedding = true;

  static constexpr const char* kPeftType = "DIFFFIT";

  template <class Visitor>
  void fields(Visitor& v) {
    v("blocks", blocks);
    v("train_bias", train_bias);
    v("train_norms", train_norms);
    v("train_class_embedding", train_class_embedding);
  }
  /// @throws ValueError for another word or type.
  void validate() const {
    const auto* word = blocks.get_if<std::string>();
    if (blocks.get_if<ConfigValue::List>() == nullptr &&
        (word == nullptr || (*word != "first_half" && *word != "all")))
      throw ValueError("DiffFit: blocks, expected first_half, all or a list of numbers");
  }
  /// True for block `number` of `count`.
  bool wants(Index number, Index count) const {
    if (const auto* word = blocks.get_if<std::string>())
      return *word == "all" || number < (count + 1) / 2;
    std::vector<Index> list;
    detail::read_config("blocks", blocks, list);
    return std::find(list.begin(), list.end(), number) != list.end();
  }
};

namespace detail {

/// y = γ ⊙ base(x), γ kept below the path of a block.
template <std::floating_point T>
class BranchScale final : public LinearPart<T> {
 public:
  BranchScale(std::string name, Index width)
      : name_(std::move(name)), gamma_(BasicTensor<T>::full({width}, T{1})) {}
  BasicVar<T> apply(const BasicLinearView<T>& base, const BasicVar<T>& x) const override {
    return mul(base(x), x.tape().parameter(gamma_));
  }
  std::vector<AdapterTensor<T>> tensors() const override {
    std::vector<AdapterTensor<T>> list(1);
    list[0].name = name_;
    list[0].parameter = gamma_;
    return list;
  }

 private:
  std::string name_;
  BasicParameter<T> gamma_;
};

/// The block of a linear layer that ends a residual branch; empty for other layers.
inline std::string branch_block(const std::string& path, bool attention) {
  static constexpr const char* kAttention[] = {"attention.output.dense", "attention.o_proj",
                                               "attention.out_lin",      "attn.c_proj",
                                               "self_attn.o_proj",       "attn.proj"};
  static constexpr const char* kFeedForward[] = {"output.dense", "mlp.fc2",  "mlp.down_proj",
                                                 "mlp.c_proj",   "ffn.lin2", "mlp.dense_4h_to_h"};
  const auto strip = [&](const auto& names) -> std::string {
    for (const char* name : names)
      if (has_suffix(path, name) && path.size() > std::string_view(name).size())
        return path.substr(0, path.size() - std::string_view(name).size() - 1);
    return {};
  };
  const std::string block = strip(kAttention);
  if (attention) return block;
  return block.empty() ? strip(kFeedForward) : std::string();
}

}  // namespace detail

/// DiffFit: x ← x + γ₁ ⊙ branch₁(x), x ← x + γ₂ ⊙ branch₂(x) in the chosen blocks, trained biases,
/// norms and class embedding everywhere but in the output layers.
///
/// The scales act behind the last linear layer of a branch, where a gate that follows commutes with
/// them, and fold into its weight and bias. γ: [width], ones; trained: 2 width a block, out a bias,
/// the norms, the class embedding. The identity at the start; merges. Source: Xie et al. 2023
/// (arXiv:2304.06648), section 3.2. Of post-norm models the scale acts before the norm. Tensors:
/// difffit_gamma_1, difffit_gamma_2 below the block, bitfit_bias, ln_tuning_layers.*, weight of the
/// class embedding.
template <std::floating_point T>
struct DiffFitMethod {
  using Scalar = T;
  using Config = DiffFitConfig;
  static MethodInfo info() {
    return {.peft_type = "DIFFFIT",
            .name = "DiffFit",
            .family = "elementwise",
            .paper = "arXiv:2304.06648",
            .sites = "blocks, linear, norm, class embedding",
            .parameters = "; 2 width a block, out a bias, 2 width a norm",
            .in_peft = false};
  }
  static bool targets(const Config&, const std::string&) { return true; }

  template <class Set>
  static void finish(const Config& config, Set& set, BasicSiteTable<T>& table, InitContext<T>&) {
    config.validate();
    const auto place = [&](auto* site, const std::string& path, auto part) {
      site->adapters().push_back({set.name(), part});
      set.add_part(path, part);
    };
    const auto is_head = [&](const std::string& path) { return table.info.is_output_layer(path); };
    if (config.train_class_embedding)
      for (auto* site : table.embedding)
        if (is_class_embedding(site->path()))
          place(site, site->path(),
                std::make_shared<FullEmbedding<T>>(site->table().dense(), site->padding_index));
    if (config.train_bias)
      for (auto* site : table.linear)
        if (site->base().bias() && !is_head(site->path()))
          place(site, site->path(), linear_part(BasicBitFit<T>(site->out_features())));
    for (auto* site : table.norm) {
      if (config.train_norms && (site->norm().weight || site->norm().bias))
        place(site, site->path(), std::make_shared<FullNorm<T>>(site->norm(), "ln_tuning_layers."));
      else if (config.train_bias && site->norm().bias)
        place(site, site->path(), norm_part(BasicBitFitNorm<T>(site->norm().bias.size())));
    }
    std::vector<std::string> blocks;
    for (const auto* site : table.linear)
      for (const bool attention : {true, false})
        if (const auto block = detail::branch_block(site->path(), attention);
            !block.empty() && std::find(blocks.begin(), blocks.end(), block) == blocks.end())
          blocks.push_back(block);
    for (auto* site : table.linear)
      for (const bool attention : {true, false}) {
        const auto block = detail::branch_block(site->path(), attention);
        if (block.empty()) continue;
        const Index number = std::find(blocks.begin(), blocks.end(), block) - blocks.begin();
        if (config.wants(number, static_cast<Index>(blocks.size())))
          place(site, block,
                std::make_shared<detail::BranchScale<T>>(
                    attention ? "difffit_gamma_1" : "difffit_gamma_2", site->out_features()));
      }
    if (set.parts().empty()) throw ValueError("DiffFit: the model has nothing to train");
  }

 private:
  static bool is_class_embedding(const std::string& path) {
    static constexpr const char* kNames[] = {"y_embedder",  "class_embedding", "class_embedder",
                                             "class_embed", "label_emb",       "embedding_table"};
    return std::any_of(std::begin(kNames), std::end(kNames),
                       [&](const char* name) { return has_suffix(path, name); });
  }
};

}  // namespace graft::inline v0_1
