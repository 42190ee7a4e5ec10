#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/prompts/prefix_tuning.hpp"
#include "graft/autograd/ops/attention.hpp"

namespace graft::inline v0_1 {

/// Configuration of LAE with its prefix.
struct LaePrefixConfig {
  Index num_virtual_tokens = 10;
  Index num_layers = 5;  ///< blocks from the first on that get a prefix; 0: all
  std::optional<Index> num_attention_heads = {};  ///< if given, it must be that of the model
  std::string module = "prefix";
  double ema = 0.9999;  ///< of the offline copy (`OfflineCopy`)

  static constexpr const char* kPeftType = "LAE";

  template <class Visitor>
  void fields(Visitor& v) {
    v("num_virtual_tokens", num_virtual_tokens);
    v("num_layers", num_layers);
    v("num_attention_heads", num_attention_heads);
    v("module", module);
    v("ema", ema);
  }
  /// @throws ValueError for a size below 1 or another module.
  void validate() const {
    if (module != "prefix")
      throw ValueError(concat("LAE: module '", module,
                              "', expected prefix; an adapter or LoRA is a method of its own, of "
                              "which an OfflineCopy can be made"));
    if (num_virtual_tokens < 1 || num_layers < 0 || !(ema >= 0) || ema > 1)
      throw ValueError(concat("LAE: num_virtual_tokens ", num_virtual_tokens, ", num_layers ",
                              num_layers, ", ema ", ema));
  }
};

/// LAE's compensated prefix in one attention:
///
///     out = (1 − λ) Att(Q, K, V) + softmax(Q P_Kᵀ / √d) P_V
///
/// for each query and head, λ the share that the prefix has in the softmax over [P_K; K]. Dividing
/// its weights by λ makes the prefix learn as fast as the other modules.
///
/// P_K, P_V: [tokens, width of the keys]; trained: 2 tokens width. Both start uniform in [0, 0.01],
/// so it is not the identity at the start; does not merge. Takes no positions. Computed as
/// Att(Q, [P_K; K], [0; V]) + Att(Q, P_K, P_V), which needs no λ; the published clamp of λ at 1e-12
/// has no counterpart.
/// Source: Gao et al. 2023, arXiv:2303.10070. Tensors: prefix_keys, prefix_values.
template <std::floating_point T>
class BasicLaePrefix final : public AttentionPart<T> {
 public:
  using Scalar = T;

  BasicLaePrefix(const LaePrefixConfig& config, Index width, InitContext<T>& context)
      : keys_(start({(config.validate(), config.num_virtual_tokens), width}, context)),
        values_(start({config.num_virtual_tokens, width}, context)) {}

  void before(AttentionCall<T>& call) const override {
    if (call.options.bias || call.options.window > 0)
      throw ValueError("LAE: attention with a bias or a window is not supported");
    if (call.k.cols() != keys_.value().cols() || call.v.cols() != values_.value().cols())
      throw ShapeError(
          concat("LAE: prefix ", keys_.shape().text(), " for keys ", call.k.shape().text()));
    auto& tape = call.q.tape();
    detail::prepend_keys(call, tape.parameter(keys_),
                         tape.constant(BasicTensor<T>::zeros(values_.shape())));
  }
  BasicVar<T> after(const AttentionCall<T>& call, BasicVar<T> out) const override {
    auto& tape = call.q.tape();
    auto options = call.options;
    options.causal = false;
    options.key_mask = nullptr;
    const Index batch = options.batch, n = keys_.value().rows();
    const auto all = [&](const BasicParameter<T>& p) {
      const Index width = p.value().cols();
      return reshape(broadcast_to(reshape(tape.parameter(p), {1, n, width}), {batch, n, width}),
                     {batch * n, width});
    };
    return add(out, attention(call.q, all(keys_), all(values_), options));
  }
  std::vector<AdapterTensor<T>> tensors() const override {
    return {detail::named("prefix_keys", keys_), detail::named("prefix_values", values_)};
  }

 private:
  static BasicTensor<T> start(const Shape& shape, InitContext<T>& context) {
    auto t = BasicTensor<T>::zeros(shape);
    if (!context.loading) context.generator.uniform(t.data(), t.size(), 0, 0.01);
    return t;
  }
  BasicParameter<T> keys_, values_;
};

using LaePrefix = BasicLaePrefix<float>;

/// LAE with its prefix (`BasicLaePrefix`) in the first blocks of a model; the other half of the
/// method, the offline copy and the ensemble, is in compose/lae.hpp.
template <std::floating_point T>
struct LaePrefixMethod {
  using Scalar = T;
  using Config = LaePrefixConfig;
  static MethodInfo info() {
    return {.peft_type = "LAE",
            .name = "LAE prefix",
            .family = "prompts",
            .paper = "arXiv:2303.10070",
            .sites = "attention",
            .parameters = "2 num_virtual_tokens kv_heads head_dim",
            .mergeable = false,
            .in_peft = false,
            .identity_at_init = false};
  }
  static bool targets(const Config&, const std::string&) { return true; }
  static std::shared_ptr<AttentionPart<T>> attention(const Config& config,
                                                     const AttentionSiteInfo<T>& site,
                                                     InitContext<T>& context) {
    if (site.role == AttentionRole::cross ||
        (config.num_layers > 0 && site.layer >= config.num_layers))
      return nullptr;
    if (config.num_attention_heads.value_or(site.heads) != site.heads)
      throw ValueError(concat("LAE: num_attention_heads ", *config.num_attention_heads, ", ",
                              site.path, " has ", site.heads));
    return std::make_shared<BasicLaePrefix<T>>(config, site.kv_heads * site.head_dim, context);
  }
};

}  // namespace graft::inline v0_1
