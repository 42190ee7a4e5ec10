#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/bottleneck/parallel.hpp"

namespace graft::inline v0_1 {

/// Configuration of inside and aside modules.
struct IAAConfig {
  Index adapter_dim = 64;
  Index aside_dim = 16;
  std::string non_linearity = "gelu";  ///< of both modules
  Selection select = {};

  static constexpr const char* kPeftType = "IAA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("adapter_dim", adapter_dim);
    v("aside_dim", aside_dim);
    v("non_linearity", non_linearity);
    select.fields(v);
  }
  /// @throws ValueError for widths below one or an unknown activation.
  void validate() const {
    if (adapter_dim < 1 || aside_dim < 1)
      throw ValueError(concat("IAA: adapter_dim ", adapter_dim, ", aside_dim ", aside_dim,
                              ", expected at least 1"));
    detail::require_activation("IAA", non_linearity);
  }
};

/// The aside module of one block, and with the first one that of the embeddings. What goes along
/// beside the blocks is shared by all of them.
template <std::floating_point T>
class BasicAside {
 public:
  using Scalar = T;
  /// s of the pass that runs, one for each stack of blocks.
  using State = std::map<std::string, BasicVar<T>>;

  BasicAside(const IAAConfig& config, const HiddenSiteInfo<T>& site, InitContext<T>& context)
      : activation_(config.non_linearity),
        stack_(stack_of(site.path)),
        state_(context.shared.object("iaa.state", [] { return State(); })) {
    const Index d = site.width, a = config.aside_dim;
    // The first block of a stack brings the module behind the embeddings with it.
    if (state_->emplace(stack_, BasicVar<T>()).second) {
      first_ = detail::TrainedAffine<T>::normal(a, d, 0.02, context);
      first_name_ = embeddings_of(site.path);
    }
    down_ = detail::TrainedAffine<T>::normal(a, d, 0.02, context);
    up_ = {detail::constant<T>({d, a}, 0), detail::constant<T>({d}, 0)};
  }
  BasicVar<T> apply(const BasicVar<T>& input, const BasicVar<T>& output, const BasicVar<T>&) const {
    auto& s = (*state_)[stack_];
    if (first_.weight) s = detail::apply_activation(activation_, first_(input));
    if (!s || &s.tape() != &output.tape())
      throw ValueError(
          "IAA: the blocks before this one ran on another tape; activations cannot be recomputed");
    s = add(s, detail::apply_activation(activation_, down_(output)));
    return add(output, up_(s));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    if (first_.weight) {
      list.push_back(detail::model_tensor(first_name_ + ".aside_down.weight", first_.weight));
      list.push_back(detail::model_tensor(first_name_ + ".aside_down.bias", first_.bias));
    }
    down_.list("aside_down", list);
    up_.list("aside_up", list);
    return list;
  }

 private:
  static std::string stack_of(const std::string& block) {
    return block.substr(0, block.rfind('.'));
  }
  /// The module that gives the first block its input, by the custom of Hugging Face models:
  /// "bert.embeddings" for "bert.encoder.layer.0", "model.embed_tokens" for "model.layers.0".
  static std::string embeddings_of(const std::string& block) {
    for (const auto& [list, name] :
         {std::pair<std::string, std::string>{"encoder.layer", "embeddings"},
          {"transformer.layer", "embeddings"},
          {"layers", "embed_tokens"},
          {"block", "embed_tokens"},
          {"h", "wte"}}) {
      const auto stack = stack_of(block);
      if (stack == list) return name;
      if (stack.ends_with("." + list)) return stack.substr(0, stack.size() - list.size()) + name;
    }
    return "embeddings";
  }

  std::string activation_, stack_, first_name_;
  std::shared_ptr<State> state_;
  detail::TrainedAffine<T> first_, down_, up_;
};

/// IAA: scaled parallel adapters inside of the blocks, h ← F(u) + φ(u Dᵀ + b_D) Uᵀ + b_U at the
/// feed-forward sublayers, joined by modules aside: s_0 = φ(x_0 P_0ᵀ + p_0), s_ℓ = s_{ℓ−1} + φ(x_ℓ
/// P_ℓᵀ + p_ℓ), x_ℓ ← x_ℓ + s_ℓ Q_ℓᵀ + q_ℓ for x_0 the embeddings and x_ℓ the output of block ℓ.
///
/// D: [r, d], U: [d, r], P: [r_a, d], Q: [d, r_a]. Trained a block: 2 d r + r + d and 2 d r_a + r_a
/// + d, once more d r_a + r_a. The identity at the start (U = 0, Q = 0). Not mergeable. Source: Ma
/// et al. 2022 (arXiv:2208.09847), section 4; the wiring of the aside modules is one reading of its
/// text. With chosen layers only, the first of them takes the place of the embeddings. Tensors:
/// `<embeddings>`.aside_down, `<block>`.{aside_down, aside_up}, adapter_down, adapter_up, each
/// {weight, bias}.
template <std::floating_point T>
struct IAAMethod {
  using Scalar = T;
  using Config = IAAConfig;
  static constexpr bool kByRole = true;
  static MethodInfo info() {
    return {.peft_type = "IAA",
            .name = "Inside and aside modules",
            .family = "bottleneck",
            .paper = "arXiv:2208.09847",
            .sites = "hidden, blocks",
            .parameters =
                "once layers (2 d adapter_dim + adapter_dim + d) + layers (2 d aside_dim "
                "+ aside_dim + d) + d aside_dim + aside_dim",
            .mergeable = false,
            .in_peft = false};
  }
  static std::shared_ptr<HiddenPart<T>> hidden(const Config& config, const HiddenSiteInfo<T>& site,
                                               InitContext<T>& context) {
    if (site.role == HiddenRole::block) return hidden_part(BasicAside<T>(config, site, context));
    if (site.role != HiddenRole::feed_forward) return nullptr;
    using Module = BasicBottleneck<T>;
    return hidden_part(
        BasicParallelAdapter<T>(Module(site.width, site.width, config.adapter_dim,
                                       config.non_linearity, Module::Start::zero_up, context),
                                1, false));
  }
};

}  // namespace graft::inline v0_1
