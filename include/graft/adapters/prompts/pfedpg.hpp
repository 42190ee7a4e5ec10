#pragma once

#include <cmath>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/prompts/prompt_table.hpp"
#include "graft/autograd/ops/attention.hpp"

namespace graft::inline v0_1 {

/// Configuration of client-specific prompt generation.
struct PfedpgConfig {
  Index num_virtual_tokens = 10;                  ///< n
  Index descriptor_tokens = 1;                    ///< m
  std::optional<Index> num_attention_heads = {};  ///< none: those of the model, one without a model

  static constexpr const char* kPeftType = "PFEDPG";

  template <class Visitor>
  void fields(Visitor& v) {
    v("num_virtual_tokens", num_virtual_tokens);
    v("descriptor_tokens", descriptor_tokens);
    v("num_attention_heads", num_attention_heads);
  }
  /// @throws ValueError for a size below 1.
  void validate() const {
    if (num_virtual_tokens < 1 || descriptor_tokens < 1 || num_attention_heads.value_or(1) < 1)
      throw ValueError(concat("pFedPG: num_virtual_tokens ", num_virtual_tokens,
                              ", descriptor_tokens ", descriptor_tokens, ", num_attention_heads ",
                              num_attention_heads.value_or(1), ", expected at least 1"));
  }
};

/// The generator of a server that knows its clients by descriptors e_k:
///
///     P_k = P_0 + MHA(P_0, e_k, e_k)
///
/// P_0: [n, d]; e_k: [m, d]; one cross-attention with input and output projections; trained: n d +
/// m d + 4 d² + 4 d. A round: a client gets P_k, trains it (and a head of its own, which stays with
/// it) to P*, sends ΔP = P_k − P*; the server makes a step from the gradients of ⟨P_k, ΔP⟩
/// (`add_gradients`). The generator has one descriptor of its own; a server with many clients makes
/// one for each (`new_descriptor`). Source: Yang et al. 2023, arXiv:2308.15367.
template <std::floating_point T>
class BasicPromptGenerator {
 public:
  using Scalar = T;
  using Config = PfedpgConfig;

  /// @throws ValueError for heads that do not divide the width.
  BasicPromptGenerator(const PfedpgConfig& config, Index width, InitContext<T>& context)
      : descriptor_tokens_((config.validate(), config.descriptor_tokens)),
        heads_(config.num_attention_heads.value_or(1)),
        base_(normal({config.num_virtual_tokens, width}, context)),
        descriptor_(normal({config.descriptor_tokens, width}, context)),
        in_weight_(xavier({3 * width, width}, context)),
        in_bias_(BasicTensor<T>::zeros({3 * width})),
        out_weight_(xavier({width, width}, context)),
        out_bias_(BasicTensor<T>::zeros({width})) {
    if (width % heads_ != 0)
      throw ValueError(concat("pFedPG: ", heads_, " heads for prompts of width ", width));
  }
  /// Prompts of the client with a descriptor, [n, d].
  BasicVar<T> operator()(const BasicVar<T>& descriptor) const {
    auto& tape = descriptor.tape();
    const auto base = tape.parameter(base_), w = tape.parameter(in_weight_),
               b = tape.parameter(in_bias_);
    const Index d = base.cols();
    const auto project = [&](const BasicVar<T>& x, Index first, Index count) {
      return detail::trained_affine<T>(x, slice(w, 0, first, count), slice(b, 0, first, count));
    };
    const auto kv = project(descriptor, d, 2 * d);
    AttentionOptions<T> options;
    options.heads = options.kv_heads = heads_;
    options.causal = false;
    options.scale = static_cast<T>(1 / std::sqrt(static_cast<double>(d / heads_)));
    const auto mixed =
        attention(project(base, 0, d), slice(kv, 1, 0, d), slice(kv, 1, d, d), options);
    return add(base, detail::trained_affine<T>(mixed, tape.parameter(out_weight_),
                                               tape.parameter(out_bias_)));
  }
  BasicVar<T> operator()(BasicTape<T>& tape) const { return (*this)(tape.parameter(descriptor_)); }
  /// Adds the gradients of ⟨P_k, ΔP⟩ to those of the generator and of the client's descriptor.
  void add_gradients(const BasicParameter<T>& descriptor, const BasicTensor<T>& delta) const {
    BasicTape<T> tape;
    const auto prompts = (*this)(tape.parameter(descriptor));
    if (delta.shape() != prompts.shape())
      throw ShapeError(concat("pFedPG: a change ", delta.shape().text(), " of prompts ",
                              prompts.shape().text()));
    tape.backward(prompts, delta);
  }
  /// A descriptor for one more client.
  BasicParameter<T> new_descriptor(TorchGenerator& generator) const {
    return BasicParameter<T>(
        detail::normal_tensor<T>(generator, {descriptor_tokens_, base_.value().cols()}, 0.02));
  }
  const BasicParameter<T>& descriptor() const { return descriptor_; }
  Index tokens() const { return base_.value().rows(); }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    const auto put = [&](const char* name, const BasicParameter<T>& p) {
      list.push_back(detail::named(concat("model.", name), p));
      list.back().scope = AdapterTensor<T>::Scope::model;
    };
    put("base_prompts", base_);
    put("descriptor", descriptor_);
    put("in_proj.weight", in_weight_);
    put("in_proj.bias", in_bias_);
    put("out_proj.weight", out_weight_);
    put("out_proj.bias", out_bias_);
    return list;
  }

 private:
  static BasicTensor<T> normal(const Shape& shape, InitContext<T>& context) {
    return context.loading ? BasicTensor<T>::zeros(shape)
                           : detail::normal_tensor<T>(context.generator, shape, 0.02);
  }
  static BasicTensor<T> xavier(const Shape& shape, InitContext<T>& context) {
    auto t = BasicTensor<T>::zeros(shape);
    const double bound = std::sqrt(6 / static_cast<double>(shape[0] + shape[1]));
    if (!context.loading) context.generator.uniform(t.data(), t.size(), -bound, bound);
    return t;
  }
  Index descriptor_tokens_, heads_;
  BasicParameter<T> base_, descriptor_, in_weight_, in_bias_, out_weight_, out_bias_;
};

using PromptGenerator = BasicPromptGenerator<float>;

namespace detail {

template <std::floating_point T>
class GeneratedPrompt final : public PromptPart<T> {
 public:
  explicit GeneratedPrompt(BasicPromptGenerator<T> generator) : generator_(std::move(generator)) {}
  Index virtual_tokens() const override { return generator_.tokens(); }
  BasicVar<T> prompt(BasicTape<T>& tape, Index batch, const ForwardContext&) const override {
    const auto p = generator_(tape);
    return broadcast_to(reshape(p, {1, p.rows(), p.cols()}), {batch, p.rows(), p.cols()});
  }
  std::vector<AdapterTensor<T>> tensors() const override { return generator_.tensors(); }

 private:
  BasicPromptGenerator<T> generator_;
};

}  // namespace detail

/// pFedPG: virtual tokens P_k = P_0 + MHA(P_0, e_k, e_k) in front of the input, those of one client
/// of a federation (`BasicPromptGenerator`).
///
/// Not the identity at the start; does not merge. Tensors: base_prompts, descriptor, in_proj (rows
/// of query, key, value), out_proj. Source: Yang et al. 2023, arXiv:2308.15367.
template <std::floating_point T>
struct PfedpgMethod {
  using Scalar = T;
  using Config = PfedpgConfig;
  static MethodInfo info() {
    return {.peft_type = "PFEDPG",
            .name = "pFedPG",
            .family = "prompts",
            .paper = "arXiv:2308.15367",
            .sites = "prompt",
            .parameters = "num_virtual_tokens d + descriptor_tokens d + 4 d^2 + 4 d",
            .mergeable = false,
            .in_peft = false,
            .identity_at_init = false,
            .adds_up = false};
  }
  static std::shared_ptr<PromptPart<T>> prompt(Config config, const PromptSiteInfo<T>& site,
                                               InitContext<T>& context) {
    if (!config.num_attention_heads) config.num_attention_heads = site.model.heads;
    return std::make_shared<detail::GeneratedPrompt<T>>(
        BasicPromptGenerator<T>(config, site.dim, context));
  }
};

}  // namespace graft::inline v0_1
