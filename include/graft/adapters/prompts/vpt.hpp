#pragma once

#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/prompts/prompt_stack.hpp"

namespace graft::inline v0_1 {

/// Configuration of visual prompt tuning.
struct VptConfig {
  Index num_tokens = 5;
  bool deep = false;  ///< new tokens before every block
  Index project = 0;  ///< width of the trained tokens, which one layer brings to that of the model;
                      ///< 0: that of the model
  double dropout = 0;  ///< of the tokens, while training; the original: 0.1

  static constexpr const char* kPeftType = "VPT";

  template <class Visitor>
  void fields(Visitor& v) {
    v("num_tokens", num_tokens);
    v("deep", deep);
    v("project", project);
    v("dropout", dropout);
  }
  /// @throws ValueError for a size or a probability out of its range.
  void validate() const {
    if (num_tokens < 1 || project < 0)
      throw ValueError(concat("VPT: num_tokens ", num_tokens, ", project ", project));
    if (dropout < 0 || dropout >= 1)
      throw ValueError(concat("VPT: dropout ", dropout, ", expected [0, 1)"));
  }
};

namespace detail {

/// Trained tokens of the blocks of a model: tables P^ℓ [tokens, width], one layer for all of them.
template <std::floating_point T>
class BlockPrompts {
 public:
  /// Uniform in ±v, v = √(6 / (3 ∏patch + width)); the layer: normal, variance 2 / out.
  /// @throws ValueError for a model without blocks.
  BlockPrompts(const VptConfig& config, const std::vector<std::string>& names,
               const BasicSiteTable<T>& table, InitContext<T>& context)
      : names_(names), dropout_(config.dropout) {
    if (names.empty())
      throw ValueError(concat("virtual tokens of blocks: the model (", table.info.architecture,
                              ") has no blocks to put them before"));
    const Index d = table.info.hidden_size, width = config.project > 0 ? config.project : d;
    const bool patches = !table.linear.empty() && !table.linear.front()->conv.kernel.empty();
    const Index patch = patches ? table.linear.front()->conv.kernel_elements() : 0;
    const double v = std::sqrt(6.0 / static_cast<double>(3 * patch + width));
    for (std::size_t i = 0; i < names.size(); ++i) {
      auto values = BasicTensor<T>::zeros({config.num_tokens, width});
      if (!context.loading) context.generator.uniform(values.data(), values.size(), -v, v);
      tables_.emplace_back(std::move(values));
    }
    if (config.project == 0) return;
    const std::string projection = root_module(names.front()) + ".prompt_proj";
    names_.push_back(projection + ".weight");
    names_.push_back(projection + ".bias");
    weight_ = BasicParameter<T>(context.loading
                                    ? BasicTensor<T>::zeros({d, width})
                                    : normal_tensor<T>(context.generator, {d, width},
                                                       std::sqrt(2.0 / static_cast<double>(d))));
    bias_ = BasicParameter<T>(kaiming_uniform_tensor<T>(context, {d}, width));
  }
  Index layers() const { return static_cast<Index>(tables_.size()); }
  const BasicParameter<T>& at(Index layer) const {
    return tables_[static_cast<std::size_t>(layer)];
  }
  /// Tokens of one block, as the model gets them: [batch, tokens, width of the model].
  BasicVar<T> rows(BasicTape<T>& tape, Index layer, Index batch) const {
    auto p = tape.parameter(at(layer));
    if (weight_) p = trained_affine<T>(p, tape.parameter(weight_), tape.parameter(bias_));
    return dropout(for_each_row(p, batch), dropout_);
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    for (std::size_t i = 0; i < tables_.size(); ++i)
      list.push_back(whole_name<T>(names_[i], tables_[i]));
    if (weight_) {
      list.push_back(whole_name<T>(names_[tables_.size()], weight_));
      list.push_back(whole_name<T>(names_[tables_.size() + 1], bias_));
    }
    return list;
  }

 private:
  std::vector<std::string> names_;
  std::vector<BasicParameter<T>> tables_;
  BasicParameter<T> weight_, bias_;
  double dropout_;
};

template <std::floating_point T>
class BlockPromptPart final : public PromptPart<T> {
 public:
  BlockPromptPart(std::shared_ptr<BlockPrompts<T>> prompts, Index tokens)
      : prompts_(std::move(prompts)), tokens_(tokens) {}
  Index virtual_tokens() const override { return tokens_; }
  BasicVar<T> prompt(BasicTape<T>& tape, Index batch, const ForwardContext&) const override {
    return prompts_->rows(tape, 0, batch);
  }
  std::vector<AdapterTensor<T>> tensors() const override { return prompts_->tensors(); }
  const BlockPrompts<T>& prompts() const { return *prompts_; }

 private:
  std::shared_ptr<BlockPrompts<T>> prompts_;
  Index tokens_;
};

template <std::floating_point T>
class BlockPromptStack final : public PromptStack<T> {
 public:
  BlockPromptStack(std::shared_ptr<BlockPrompts<T>> prompts, Index tokens, Index in_front)
      : PromptStack<T>(tokens, in_front), prompts_(std::move(prompts)) {}
  std::vector<AdapterTensor<T>> tensors() const override { return {}; }

 protected:
  BasicVar<T> prompts(Index layer, const BasicVar<T>& x,
                      const ForwardContext& context) const override {
    if (layer == 0 || layer >= prompts_->layers()) return {};
    return prompts_->rows(x.tape(), layer, context.batch);
  }

 private:
  std::shared_ptr<BlockPrompts<T>> prompts_;
};

/// Puts the tokens of VPT on a model.
template <class Set, std::floating_point T>
void place_vpt(const VptConfig& config, Set& set, BasicSiteTable<T>& table,
               InitContext<T>& context) {
  std::vector<std::string> names;
  if (table.prompt != nullptr) names.push_back(table.prompt->path() + ".prompt_embeddings");
  const auto blocks = block_paths(table);
  if (config.deep)
    for (std::size_t l = 1; l < blocks.size(); ++l)
      names.push_back(blocks[l] + ".prompt_embeddings");
  const auto prompts = std::make_shared<BlockPrompts<T>>(config, names, table, context);
  place_prompt<T>(set, table, std::make_shared<BlockPromptPart<T>>(prompts, config.num_tokens));
  if (config.deep)
    place_stack<T>(set, table,
                   std::make_shared<BlockPromptStack<T>>(prompts, config.num_tokens,
                                                         table.prompt->in_front()));
}

}  // namespace detail

/// Visual prompt tuning: [class token; P; patches], P: [tokens, width]; deep: before each later
/// block ℓ new tokens P^ℓ take the place of what came out for the old ones. With `project` the
/// tokens are P Aᵀ + a, A: [width, project], a: [width], the same for all blocks.
///
/// Trained: tokens · width, deep layers · tokens · width; with a projection its width instead, and
/// (project + 1) · width. Not the identity at the start; does not merge. In a model of text the
/// tokens come in front of all others, where prompt tuning has them. Source: Jia et al. 2022,
/// arXiv:2203.12119, equations 4 to 8, and its program for the first values. Tensors:
/// vit.embeddings.prompt_embeddings, vit.encoder.layer.N.prompt_embeddings, vit.prompt_proj.
template <std::floating_point T>
struct VptMethod {
  using Scalar = T;
  using Config = VptConfig;
  static MethodInfo info() {
    return {.peft_type = "VPT",
            .name = "Visual prompt tuning",
            .family = "prompts",
            .paper = "arXiv:2203.12119",
            .sites = "prompt, blocks",
            .parameters = "; num_tokens d, deep num_tokens d a block",
            .mergeable = false,
            .in_peft = false,
            .identity_at_init = false,
            .adds_up = false};
  }
  template <class Set>
  static void finish(const Config& config, Set& set, BasicSiteTable<T>& table,
                     InitContext<T>& context) {
    detail::place_vpt(config, set, table, context);
  }
};

}  // namespace graft::inline v0_1
