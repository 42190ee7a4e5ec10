#pragma once

#include <memory>
#include <string>
#include <vector>

#include "graft/adapters/full_copy.hpp"
#include "graft/adapters/method.hpp"

namespace graft {

/// Configuration of the bias and scale tuning of LLaMA-Adapter V2.
struct LlamaAdapterV2Config {
  TargetModules target_modules = "all-linear";
  std::string side = "input";  ///< of the scale: input (released code) or output (paper)
  bool train_norms = true;     ///< trained copies of all norms
  Selection select = {};

  static constexpr const char* kPeftType = "LLAMA_ADAPTER_V2";

  template <class Visitor>
  void fields(Visitor& v) {
    v("target_modules", target_modules);
    v("side", side);
    v("train_norms", train_norms);
    select.fields(v);
  }
  /// @throws ValueError for an unknown side.
  void validate() const {
    if (side != "input" && side != "output")
      throw ValueError(concat("LLaMA-Adapter V2: side '", side, "', expected input or output"));
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
      : input_((config.validate(), config.side == "input")) {
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

/// Scale and bias at linear layers, and trained copies of all norms (ln_tuning_layers.*).
template <std::floating_point T>
struct LlamaAdapterV2Method {
  using Scalar = T;
  using Config = LlamaAdapterV2Config;
  static MethodInfo info() {
    return {.peft_type = "LLAMA_ADAPTER_V2",
            .name = "LLaMA-Adapter V2 (bias and scale)",
            .family = "elementwise",
            .paper = "arXiv:2304.15010",
            .sites = "linear, norm",
            .parameters = "; in + out or 2 out a layer, width a norm",
            .in_peft = false};
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    return linear_part(BasicLlamaAdapterV2<T>(config, site, context));
  }
  template <class Set>
  static void finish(const Config& config, Set& set, BasicSiteTable<T>& table, InitContext<T>&) {
    if (!config.train_norms) return;
    for (auto* site : table.norm) {
      auto part = std::make_shared<FullNorm<T>>(site->norm(), "ln_tuning_layers.");
      site->adapters().push_back({set.name(), part});
      set.add_part(site->path(), part);
    }
  }
};

using LlamaAdapterV2 = BasicLlamaAdapterV2<float>;

}  // namespace graft
