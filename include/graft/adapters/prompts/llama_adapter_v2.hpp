#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/full_copy.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/prompts/adaption_prompt.hpp"
#include "graft/adapters/prompts/prompt_stack.hpp"

namespace graft::inline v0_1 {

/// Configuration of LLaMA-Adapter V2. With one of the four first fields below the gated prompts and
/// the early fusion of visual tokens take part; without, biases, scales and norms alone.
struct LlamaAdapterV2Config {
  TargetModules target_modules = "all-linear";
  std::optional<Index> adapter_len;        ///< 10
  std::optional<Index> adapter_layers;     ///< 30: with gated prompts, counted from the last one
  std::optional<Index> early_layers;       ///< 1: the first ones, which see the visual tokens
  std::optional<Index> num_visual_tokens;  ///< of an image; none: as the batch has them
  std::optional<Index> visual_dim;         ///< width of a visual token; none: that of the model
  std::optional<std::string> side;  ///< of the scale: input (released code) or output (paper);
                                    ///< none: output with prompts, input without
  bool train_norms = true;          ///< trained copies of all norms
  ConfigValue groups;               ///< names of the optimiser's groups, for the record
  Selection select = {};

  static constexpr const char* kPeftType = "LLAMA_ADAPTER_V2";

  template <class Visitor>
  void fields(Visitor& v) {
    v("target_modules", target_modules);
    v("adapter_len", adapter_len);
    v("adapter_layers", adapter_layers);
    v("early_layers", early_layers);
    v("num_visual_tokens", num_visual_tokens);
    v("visual_dim", visual_dim);
    v("side", side);
    v("train_norms", train_norms);
    v("groups", groups);
    select.fields(v);
  }
  bool whole() const { return adapter_len || adapter_layers || early_layers || num_visual_tokens; }
  std::string scale_side() const { return side.value_or(whole() ? "output" : "input"); }
  /// @throws ValueError for an unknown side or a size below 1.
  void validate() const {
    if (scale_side() != "input" && scale_side() != "output")
      throw ValueError(concat("LLaMA-Adapter V2: side '", *side, "', expected input or output"));
    for (const auto& size :
         {adapter_len, adapter_layers, early_layers, num_visual_tokens, visual_dim})
      if (size && *size < 1)
        throw ValueError(concat("LLaMA-Adapter V2: a size is ", *size, ", expected at least 1"));
  }
};

/// Bias and scale of LLaMA-Adapter V2: y = base(s ⊙ x) + t, or y = s ⊙ (base(x) + t).
///
/// s: [in] or [out], ones; t: [out], zeros; trained: in + out, or 2 out. The identity at the start.
/// Merges: W diag(s) and b + t, or diag(s) W and s ⊙ (b + t). Source: Gao et al. 2023
/// (arXiv:2304.15010), section 3.1 for the output side; the released code has the input side.
/// Tensors: adapter_scale, adapter_bias.
template <std::floating_point T>
class BasicLlamaAdapterV2 {
 public:
  using Scalar = T;
  using Config = LlamaAdapterV2Config;

  BasicLlamaAdapterV2(const LlamaAdapterV2Config& config, const LinearSiteInfo<T>& site,
                      InitContext<T>&)
      : input_((config.validate(), config.scale_side() == "input")) {
    if (input_ && !site.conv.kernel.empty())
      throw ValueError(concat("LLaMA-Adapter V2: side input at the convolution ", site.path,
                              " is not supported"));
    scale_ = BasicParameter<T>(
        BasicTensor<T>::full({input_ ? site.in_features : site.out_features}, T{1}));
    bias_ = BasicParameter<T>(BasicTensor<T>::zeros({site.out_features}));
  }
  /// For a layer of one's own.
  template <Linear L>
  BasicLlamaAdapterV2(const LlamaAdapterV2Config& config, const L& base)
      : BasicLlamaAdapterV2(config, site_info(base), StandaloneInit<T>(0).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto s = tape.parameter(scale_), t = tape.parameter(bias_);
    return input_ ? add(linear(base, mul(x, s)), t) : mul(add(linear(base, x), t), s);
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(2);
    list[0].name = "adapter_scale";
    list[0].parameter = scale_;
    list[1].name = "adapter_bias";
    list[1].parameter = bias_;
    return list;
  }

 private:
  bool input_;
  BasicParameter<T> scale_, bias_;
};

namespace detail {

/// Tokens of an image encoder v [batch · tokens, width], as tokens of the model: v W_pᵀ + w_p.
template <std::floating_point T>
class VisualTokens final : public PromptPart<T> {
 public:
  VisualTokens(const LlamaAdapterV2Config& config, Index width, InitContext<T>& context)
      : tokens_(config.num_visual_tokens), width_(width) {
    resize(config.visual_dim.value_or(width));
    if (context.loading) return;
    const Index in = weight_.shape()[1];
    weight_.assign(kaiming_uniform_tensor<T>(context.generator, {width, in}, in));
    bias_.assign(kaiming_uniform_tensor<T>(context.generator, {width}, in));
  }
  Index virtual_tokens() const override { return 0; }
  /// @throws ValueError if the number of tokens depends on the batch.
  Index tokens_with(bool visual) const override {
    if (!visual) return 0;
    if (!tokens_)
      throw ValueError("LLaMA-Adapter V2: a batch with visual tokens, but no num_visual_tokens");
    return *tokens_;
  }
  BasicVar<T> prompt(BasicTape<T>& tape, Index batch,
                     const ForwardContext& context) const override {
    const Index in = weight_.shape()[1], tokens = tokens_with(true);
    if (context.visual_width != in ||
        std::ssize(context.visual) != batch * tokens * context.visual_width)
      throw ShapeError(concat("LLaMA-Adapter V2: ", context.visual.size(),
                              " values of visual tokens ", context.visual_width,
                              " wide for a batch of ", batch, ", expected ", tokens,
                              " tokens of width ", in));
    const auto v = tape.constant(BasicTensor<T>::from(context.visual, {batch * tokens, in}));
    return reshape(trained_affine<T>(v, tape.parameter(weight_), tape.parameter(bias_)),
                   {batch, tokens, width_});
  }
  bool predicts() const override { return false; }
  std::vector<AdapterTensor<T>> tensors() const override {
    std::vector<AdapterTensor<T>> list{whole_name<T>("visual_proj.weight", weight_),
                                       whole_name<T>("visual_proj.bias", bias_)};
    for (auto& t : list) t.group = "visual";
    return list;
  }
  void before_load(const CheckpointShapes& shapes) override {
    const auto* shape = shapes("model.visual_proj.weight");
    if (shape != nullptr && shape->rank() == 2 && (*shape)[1] != weight_.shape()[1])
      resize((*shape)[1]);
  }

 private:
  void resize(Index in) {
    weight_ = BasicParameter<T>(BasicTensor<T>::zeros({width_, in}));
    if (!bias_) bias_ = BasicParameter<T>(BasicTensor<T>::zeros({width_}));
  }
  std::optional<Index> tokens_;
  Index width_;
  BasicParameter<T> weight_, bias_;
};

/// Hides the visual tokens from the attention of a later block.
template <std::floating_point T>
class HiddenVisualTokens final : public AttentionPart<T> {
 public:
  void before(AttentionCall<T>& call) const override {
    const auto* context = call.q.tape().template context<ForwardContext>();
    if (context == nullptr || context->visual.empty()) return;
    const Index batch = call.options.batch, keys = call.k.rows() / batch,
                tokens = std::ssize(context->visual) / (batch * context->visual_width);
    auto mask = call.options.key_mask
                    ? std::make_shared<std::vector<unsigned char>>(*call.options.key_mask)
                    : std::make_shared<std::vector<unsigned char>>(
                          static_cast<std::size_t>(batch * keys), static_cast<unsigned char>(1));
    for (Index b = 0; b < batch; ++b)
      std::fill_n(mask->begin() + b * keys, tokens, static_cast<unsigned char>(0));
    call.options.key_mask = std::move(mask);
  }
  std::vector<AdapterTensor<T>> tensors() const override { return {}; }
};

}  // namespace detail

/// LLaMA-Adapter V2: scales and biases at linear layers and trained copies of all norms; with one
/// of its fields set also gated prompts in the last layers, as LLaMA-Adapter, and the visual tokens
/// of a batch in front of the text in the first blocks, projected to its width. Behind these blocks
/// nothing sees them, and the text keeps its positions after them.
///
/// Trained: in + out (or 2 out) a layer, the norms, length · d + heads a layer with prompts, and
/// (visual width + 1) · d. The identity at the start for batches without visual tokens. Scales,
/// biases and norms merge, prompts do not. Two groups of the optimiser: "visual" for batches with
/// images, "language" (all else) for text; `keep_gradients_of` drops those of the other. Source:
/// Gao et al. 2023, arXiv:2304.15010, sections 3.1 to 3.3. Tensors: adapter_scale, adapter_bias,
/// adaption_prompt, adaption_gate, visual_proj; norms under their own names, without prompts under
/// ln_tuning_layers.*.
template <std::floating_point T>
struct LlamaAdapterV2Method {
  using Scalar = T;
  using Config = LlamaAdapterV2Config;
  static MethodInfo info() {
    return {.peft_type = "LLAMA_ADAPTER_V2",
            .name = "LLaMA-Adapter V2",
            .family = "prompts",
            .paper = "arXiv:2304.15010",
            .sites = "linear, norm, attention, prompt",
            .parameters = "; in + out or 2 out a layer, width a norm",
            .merge_unless = "prompts take part",
            .in_peft = false};
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    return linear_part(BasicLlamaAdapterV2<T>(config, site, context));
  }
  template <class Set>
  static void finish(const Config& config, Set& set, BasicSiteTable<T>& table,
                     InitContext<T>& context) {
    const auto place = [&](auto* site, auto part) {
      site->adapters().push_back({set.name(), part});
      set.add_part(site->path(), part);
    };
    if (config.train_norms)
      for (auto* site : table.norm)
        place(site, std::make_shared<FullNorm<T>>(site->norm(),
                                                  config.whole() ? "" : "ln_tuning_layers."));
    if (!config.whole()) return;
    const Index first = table.info.layers - config.adapter_layers.value_or(30);
    for (auto* site : table.attention) {
      if (site->role != AttentionRole::self) continue;
      if (site->layer >= config.early_layers.value_or(1))
        place(site, std::make_shared<detail::HiddenVisualTokens<T>>());
      if (site->layer < first) continue;
      const AttentionSiteInfo<T> info{site->path(),   site->layer, site->heads, site->kv_heads,
                                      site->head_dim, site->role,  table.info,  {}};
      place(site, std::make_shared<BasicAdaptionPrompt<T>>(
                      GatedPromptOptions{.length = config.adapter_len.value_or(10),
                                         .gate_per_head = true,
                                         .tanh_gate = true,
                                         .as_peft = false},
                      info, context));
    }
    detail::place_prompt<T>(
        set, table,
        std::make_shared<detail::VisualTokens<T>>(config, table.info.hidden_size, context));
  }
};

/// Drops the gradients of all tensors of an adapter but those of one group; other groups count as
/// "language".
template <class Set>
void keep_gradients_of(const std::string& group, const Set& set) {
  for (const auto& [key, tensor] : set.tensors())
    if (tensor.parameter && (tensor.group.empty() ? "language" : tensor.group) != group)
      tensor.parameter.zero_grad();
}

using LlamaAdapterV2 = BasicLlamaAdapterV2<float>;

}  // namespace graft::inline v0_1
