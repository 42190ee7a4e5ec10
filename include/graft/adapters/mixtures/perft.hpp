#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/method.hpp"
#include "graft/adapters/mixtures/router.hpp"
#include "graft/adapters/sublayer.hpp"

namespace graft::inline v0_1 {

/// Configuration of PERFT.
struct PerftConfig {
  std::string variant = "routed";  ///< routed, dense, single, embedded
  Index num_experts = 4;           ///< single: 1; embedded: those of the frozen block
  std::optional<Index> top_k = 2;  ///< of routed; none: all
  Index rank = 16;
  std::optional<double> alpha = {};  ///< none: 2 r
  std::string activation = "identity";
  double router_aux_loss_coef = 1e-2;  ///< of routed, averaged over the blocks
  // What the frozen block is, for its readers.
  std::optional<Index> base_num_experts = {}, base_top_k = {};
  std::optional<bool> base_norm_topk_prob = {};
  Selection select = {};

  static constexpr const char* kPeftType = "PERFT";

  template <class Visitor>
  void fields(Visitor& v) {
    v("variant", variant);
    v("num_experts", num_experts);
    v("top_k", top_k);
    v("r", rank);
    v("lora_alpha", alpha);
    v("activation", activation);
    v("router_aux_loss_coef", router_aux_loss_coef);
    v("base_num_experts", base_num_experts);
    v("base_top_k", base_top_k);
    v("base_norm_topk_prob", base_norm_topk_prob);
    select.fields(v);
  }
  /// @throws ValueError for an unknown variant or activation, or counts that do not fit it.
  void validate() const {
    if (variant != "routed" && variant != "dense" && variant != "single" && variant != "embedded")
      throw ValueError(
          concat("PERFT: variant '", variant, "', expected routed, dense, single or embedded"));
    detail::require_experts("PERFT", num_experts, top_k.value_or(1), rank);
    detail::require_activation("PERFT", activation);
    if (variant == "single" && num_experts != 1)
      throw ValueError(concat("PERFT: variant single has 1 expert, not ", num_experts));
    if (variant == "embedded" && base_num_experts && *base_num_experts != num_experts)
      throw ValueError(concat("PERFT: ", num_experts, " embedded experts for ", *base_num_experts,
                              " frozen ones"));
  }
};

/// PERFT: small experts Δ_j(u) = s φ(u D_jᵀ) U_jᵀ beside a frozen block F, most of all a mixture of
/// experts itself.
///
/// routed: F(u) + Σ_{j ∈ top-k(p)} p_j Δ_j(u), p = softmax(u W̃ᵀ), probabilities as they are; dense:
/// F(u) + Σ_j Δ_j(u), single: the same with one; embedded: F(u) + Σ_i G_i(u) Δ_i(u) with the gates
/// G of the frozen router, one expert for each of its own. D: [N, r, d], U: [N, d, r], W̃: [N, d], s
/// = alpha / r; trained: 2 N d r, routed N d more. φ: the identity unless the configuration names
/// another. The identity at the start (U = 0; D Kaiming-uniform, W̃ N(0, 0.02)). Loss of routed:
/// router_aux_loss_coef · L_bal, averaged over the blocks. Does not merge: the frozen block is no
/// layer. Source: Liu et al. 2024 (arXiv:2411.08212), section 3. Deviation: routers of the base
/// stay frozen. The models here have no experts of their own, so `embedded` is for a block of one's
/// own: call `embedded`. Tensors: perft_down, perft_up, perft_router.weight.
template <std::floating_point T>
class BasicPerft {
 public:
  using Scalar = T;
  using Config = PerftConfig;

  /// `blocks`: number of blocks that have such experts.
  BasicPerft(const PerftConfig& config, Index width, Index blocks, InitContext<T>& context)
      : config_(config),
        width_(width),
        scaling_(static_cast<T>(config.alpha.value_or(2 * static_cast<double>(config.rank)) /
                                static_cast<double>(config.rank))),
        coefficient_(static_cast<T>(config.router_aux_loss_coef /
                                    static_cast<double>(std::max(blocks, Index{1})))) {
    config.validate();
    const Index n = config.num_experts, r = config.rank;
    down_ = detail::fresh<T>(context, {n, r, width}, [&](TorchGenerator& g, BasicTensor<T>& t) {
      const double bound = kaiming_uniform_bound(width, std::sqrt(5.0));
      g.uniform(t.data(), t.size(), -bound, bound);
    });
    up_ = detail::constant<T>({n, width, r}, 0);
    if (routed()) router_ = {n, width, false, 0.02, context};
  }

  /// u: what the frozen block got, output: what it gave; both [..., d].
  /// @throws ValueError for the embedded variant, which needs the gates of the block
  BasicVar<T> apply(const BasicVar<T>& u, const BasicVar<T>& output,
                    const BasicVar<T>& = {}) const {
    if (config_.variant == "embedded")
      throw ValueError("PERFT: the embedded variant needs the gates of the frozen router");
    const auto rows = detail::as_rows(u);
    if (!routed()) return add(output, reshape(mixed(rows, {}), output.shape()));
    const auto r = route(router_(rows), config_.top_k.value_or(config_.num_experts), false);
    if (coefficient_ > 0)
      pending_.leave(u.tape(), [r, this,
                                counted = counted_rows(u.tape().template context<ForwardContext>(),
                                                       rows.rows())] {
        return scale(balance_loss(r, counted), coefficient_);
      });
    return add(output, reshape(mixed(rows, r.weights), output.shape()));
  }
  /// The embedded variant: gates: [tokens, N], zero for experts that a token does not run.
  BasicVar<T> embedded(const BasicVar<T>& u, const BasicVar<T>& output,
                       const BasicVar<T>& gates) const {
    return add(output, reshape(mixed(detail::as_rows(u), gates), output.shape()));
  }
  BasicVar<T> auxiliary_loss(BasicTape<T>& tape) const { return pending_.take(tape); }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list = {detail::named("perft_down", down_),
                                          detail::named("perft_up", up_)};
    if (routed()) router_.list(list, "perft_router");
    return list;
  }
  std::string merge_reason() const { return "experts beside a block are no change of a weight"; }

 private:
  bool routed() const { return config_.variant == "routed"; }
  /// Σ_j w_j Δ_j(u); without weights Σ_j Δ_j(u).
  BasicVar<T> mixed(const BasicVar<T>& u, const BasicVar<T>& weights) const {
    auto& tape = u.tape();
    const Index n = config_.num_experts, r = config_.rank, tokens = u.rows();
    auto low = detail::apply_activation(
        config_.activation,
        matmul(u, reshape(tape.parameter(down_), {n * r, width_}), Transpose::no, Transpose::yes));
    if (weights)
      low = reshape(mul(reshape(low, {tokens, n, r}), reshape(weights, {tokens, n, 1})),
                    {tokens, n * r});
    const auto up = reshape(permute(tape.parameter(up_), {1, 0, 2}), {width_, n * r});
    return scale(matmul(low, up, Transpose::no, Transpose::yes), scaling_);
  }

  PerftConfig config_;
  Index width_;
  T scaling_, coefficient_;
  BasicParameter<T> down_, up_;
  ExpertRouter<T> router_;
  detail::PendingLoss<T> pending_;
};

template <std::floating_point T>
struct PerftMethod {
  using Scalar = T;
  using Config = PerftConfig;
  static constexpr bool kByRole = true;
  static MethodInfo info() {
    return {.peft_type = "PERFT",
            .name = "PERFT",
            .family = "mixtures",
            .paper = "arXiv:2411.08212",
            .sites = "hidden",
            .parameters = "num_experts d (2 r + 1); without a router num_experts d 2 r",
            .mergeable = false,
            .in_peft = false};
  }
  static std::shared_ptr<HiddenPart<T>> hidden(const Config& config, const HiddenSiteInfo<T>& site,
                                               InitContext<T>& context) {
    if (site.role != HiddenRole::feed_forward) return nullptr;
    if (config.variant == "embedded")
      throw ValueError(concat("PERFT: the embedded variant is not supported at ", site.path,
                              ", which has no experts and no router of its own"));
    const auto& some = config.select.layers_to_transform;
    const Index blocks = some.empty() ? site.model.layers : std::ssize(some);
    return hidden_part(BasicPerft<T>(config, site.width, blocks, context));
  }
};

using Perft = BasicPerft<float>;

}  // namespace graft::inline v0_1
