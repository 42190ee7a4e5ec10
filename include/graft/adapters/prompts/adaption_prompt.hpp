#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"

namespace graft::inline v0_1 {

/// Configuration of adaption prompts; fields as in PEFT's AdaptionPromptConfig.
struct AdaptionPromptConfig {
  std::optional<std::string> attention_name;  ///< `target_modules` in files; none: as the model
                                              ///< calls its attention
  std::optional<Index> adapter_len;
  std::optional<Index> adapter_layers;  ///< counted from the last one

  static constexpr const char* kPeftType = "ADAPTION_PROMPT";

  template <class Visitor>
  void fields(Visitor& v) {
    v("target_modules", attention_name);
    v("adapter_len", adapter_len);
    v("adapter_layers", adapter_layers);
  }
  /// @throws ValueError if a length is missing or below 1.
  void validate() const {
    if (adapter_len.value_or(0) < 1 || adapter_layers.value_or(0) < 1)
      throw ValueError(concat("adaption prompt: adapter_len ", adapter_len.value_or(0),
                              ", adapter_layers ", adapter_layers.value_or(0),
                              ", expected at least 1"));
  }
};

/// How a gated prompt joins an attention.
struct GatedPromptOptions {
  Index length = 1;
  bool gate_per_head = false;
  bool tanh_gate = false;
  /// In GPT-2 the term joins behind the output projection; elsewhere the bias of the projection
  /// counts twice; files have one more axis.
  bool as_peft = true;
};

/// A gated attention of the queries to a prompt, beside that to the text.
template <std::floating_point T>
class BasicAdaptionPrompt final : public AttentionPart<T> {
 public:
  BasicAdaptionPrompt(const GatedPromptOptions& options, const AttentionSiteInfo<T>& site,
                      InitContext<T>& context)
      : options_(options),
        prompt_(BasicTensor<T>::zeros({options.length, site.model.hidden_size})),
        gate_(BasicTensor<T>::zeros({options.gate_per_head ? site.heads : 1})) {
    if (!context.loading)
      prompt_.assign(detail::normal_tensor<T>(context.generator, prompt_.shape(), 1));
  }

  BasicVar<T> after(const AttentionCall<T>& call, BasicVar<T> out) const override {
    return behind(call) ? out : add(out, term(call));
  }
  BasicVar<T> projected(const AttentionCall<T>& call, BasicVar<T> out) const override {
    if (behind(call)) return add(out, term(call));
    const auto bias = options_.as_peft ? call.output->base().bias() : BasicTensor<T>{};
    return bias ? add(out, out.tape().constant(bias)) : out;
  }
  std::vector<AdapterTensor<T>> tensors() const override {
    std::vector<AdapterTensor<T>> list;
    Shape shape;
    if (options_.as_peft) shape = Shape{1, prompt_.shape()[0], prompt_.shape()[1]};
    list.push_back(
        {.name = "adaption_prompt", .parameter = prompt_, .index = {}, .file_shape = shape});
    list.push_back({.name = "adaption_gate", .parameter = gate_, .index = {}, .file_shape = {}});
    return list;
  }

 private:
  bool behind(const AttentionCall<T>& call) const {
    return options_.as_peft && call.fused != nullptr;
  }
  BasicVar<T> term(const AttentionCall<T>& call) const {
    auto& tape = call.q.tape();
    const Index length = prompt_.shape()[0];
    const auto p = tape.parameter(prompt_);
    BasicVar<T> k, v;
    if (call.fused != nullptr) {
      const auto all = (*call.fused)(p);
      const Index width = all.cols() / 3;
      k = slice(all, 1, width, width);
      v = slice(all, 1, 2 * width, width);
    } else if (call.key != nullptr && call.value != nullptr) {
      k = (*call.key)(p);
      v = (*call.value)(p);
    } else {
      throw ValueError("adaption prompt: the attention does not tell how it makes keys and values");
    }
    AttentionOptions<T> options;
    options.batch = call.options.batch;
    options.heads = call.options.heads;
    options.kv_heads = call.options.kv_heads;
    options.scale = static_cast<T>(
        1 / std::sqrt(static_cast<double>(call.q.cols()) / static_cast<double>(options.heads)));
    options.causal = false;
    const auto repeat = [&](const BasicVar<T>& x) {
      const Index batch = options.batch;
      return reshape(broadcast_to(reshape(x, {1, length, x.cols()}), {batch, length, x.cols()}),
                     {batch * length, x.cols()});
    };
    auto gate = tape.parameter(gate_);
    if (options_.tanh_gate) gate = tanh(gate);
    const auto y = attention(call.q, repeat(k), repeat(v), options);
    if (!options_.gate_per_head) return mul(y, gate);
    const Index heads = options.heads;
    return reshape(mul(reshape(y, {y.rows(), heads, y.cols() / heads}), reshape(gate, {heads, 1})),
                   y.shape());
  }

  GatedPromptOptions options_;
  BasicParameter<T> prompt_, gate_;
};

/// Adaption prompt (LLaMA-Adapter): attention + g · softmax(q k(P)ᵀ/√d) v(P) in the last layers, k
/// and v the frozen layers of the attention, without rotation; P: [1, length, hidden], g: [1].
///
/// Trained: length · hidden + 1 a layer. The identity at the start (g = 0). Does not merge. Source:
/// Zhang et al. 2023, arXiv:2303.16199, with one gate for all heads as in PEFT. As PEFT: in GPT-2
/// the term joins after the output projection, without it; elsewhere it goes through the
/// projection, whose bias then counts twice. Tensors: adaption_prompt, adaption_gate.
template <std::floating_point T>
struct AdaptionPromptMethod {
  using Scalar = T;
  using Config = AdaptionPromptConfig;
  static Config example() {
    Config config;
    config.adapter_len = 4;
    config.adapter_layers = 1;
    return config;
  }
  static MethodInfo info() {
    return {.peft_type = "ADAPTION_PROMPT",
            .name = "Adaption prompt",
            .family = "prompts",
            .paper = "arXiv:2303.16199",
            .sites = "attention",
            .parameters = "adapter_len d + 1",
            .mergeable = false};
  }
  static bool targets(const Config& config, const std::string& path) {
    if (config.attention_name) return path.ends_with("." + *config.attention_name);
    return path.ends_with(".self_attn") || path.ends_with(".attn");
  }
  static std::shared_ptr<AttentionPart<T>> attention(const Config& config,
                                                     const AttentionSiteInfo<T>& site,
                                                     InitContext<T>& context) {
    const auto& all = site.all_sites;
    const auto count = static_cast<Index>(all.size()), wanted = *config.adapter_layers;
    if (count < wanted)
      throw ValueError(
          concat("adaption prompt: adapter_layers ", wanted, ", the model has ", count));
    if (std::find(all.begin(), all.end(), site.path) - all.begin() < count - wanted) return nullptr;
    return std::make_shared<BasicAdaptionPrompt<T>>(
        GatedPromptOptions{.length = *config.adapter_len}, site, context);
  }
  template <class Set, class Table>
  static void finish(Config config, Set& set, const Table&, InitContext<T>&) {
    if (config.attention_name || set.parts().empty()) return;
    const auto& path = set.parts().front().path;
    set.mutable_config()["target_modules"] = path.substr(path.rfind('.') + 1);
  }
};

}  // namespace graft::inline v0_1
