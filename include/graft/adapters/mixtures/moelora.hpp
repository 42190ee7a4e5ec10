#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/adapted.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/mixtures/router.hpp"

namespace graft::inline v0_1 {

/// Configuration of MoELoRA.
struct MoELoRAConfig {
  Index num_experts = 8;
  Index top_k = 2;
  Index rank = 4;
  double alpha = 16;
  double dropout = 0;  ///< on the input of the experts, while training
  double temperature = 0.07;
  double contrastive_loss_coef = 0.01;
  double router_aux_loss_coef = 0.01;
  std::optional<Index> contrastive_tokens = {};  ///< at most so many of a pass are contrasted
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "MOELORA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("num_experts", num_experts);
    v("top_k", top_k);
    v("r", rank);
    v("lora_alpha", alpha);
    v("lora_dropout", dropout);
    v("temperature", temperature);
    v("contrastive_loss_coef", contrastive_loss_coef);
    v("router_aux_loss_coef", router_aux_loss_coef);
    v("contrastive_tokens", contrastive_tokens);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for counts below one, a temperature that is not above zero or a dropout
  /// outside of [0, 1).
  void validate() const {
    detail::require_experts("MoELoRA", num_experts, top_k, rank);
    detail::require_dropout("MoELoRA", dropout);
    if (!(temperature > 0))
      throw ValueError(concat("MoELoRA: temperature ", temperature, ", expected more than 0"));
    if (contrastive_tokens && *contrastive_tokens < 2)
      throw ValueError(
          concat("MoELoRA: contrastive_tokens ", *contrastive_tokens, ", expected at least 2"));
  }
};

/// −mean_i ln(Σ_{j ∈ pos(i)} e^{o_i · o_j / τ} / Σ_{j ≠ i} e^{o_i · o_j / τ}) over unit vectors o,
/// pos(i) the others of the same group. An output without another one of its group is left out of
/// the mean. outputs: [n, width], group: [n]. Empty if no output has a partner.
template <std::floating_point T>
BasicVar<T> contrastive_loss(const BasicVar<T>& outputs, const std::vector<std::int32_t>& group,
                             double temperature) {
  auto& tape = outputs.tape();
  const Index n = outputs.rows();
  auto others = BasicTensor<T>::zeros({n, n}), same = BasicTensor<T>::zeros({n, n});
  constexpr T kNever = static_cast<T>(-1e30);
  std::vector<Index> paired;
  for (Index i = 0; i < n; ++i) {
    others(i, i) = kNever;
    bool any = false;
    for (Index j = 0; j < n; ++j) {
      const bool positive =
          i != j && group[static_cast<std::size_t>(i)] == group[static_cast<std::size_t>(j)];
      same(i, j) = positive ? T{0} : kNever;
      any = any || positive;
    }
    if (any) paired.push_back(i);
  }
  if (paired.empty()) return {};
  const auto likeness = scale(matmul(outputs, outputs, Transpose::no, Transpose::yes),
                              static_cast<T>(1 / temperature));
  const auto all = log_sum_exp(gather_rows(add(likeness, tape.constant(others)), paired)),
             own = log_sum_exp(gather_rows(add(likeness, tape.constant(same)), paired));
  return mean(sub(all, own));
}

/// MoELoRA: y = base(x) + s Σ_{e ∈ top-k} w_e x A_eᵀ B_eᵀ, w the router's k largest probabilities
/// softmax(x W_rᵀ) divided by their sum; a contrastive loss makes the outputs of one expert alike
/// and those of different ones unlike.
///
/// A: [N, r, in], B: [N, out, r], W_r: [N, in], s = alpha / r; trained: N r (in + out) + N in. The
/// identity at the start (B = 0; A and W_r Kaiming-uniform). Losses, averaged over the adapted
/// layers: contrastive_loss_coef · `contrastive_loss` of o_{m,e} / (‖o_{m,e}‖ + 10⁻⁶), o_{m,e} =
/// x_m A_eᵀ B_eᵀ of every token with its k experts, plus router_aux_loss_coef · L_bal. Outputs that
/// vanish have no direction and take no part, so that the first step has no contrastive loss.
/// Padding takes part in neither. Does not merge. Source: Luo et al. 2024 (arXiv:2402.12851); there
/// is no code. Deviation: `contrastive_tokens` takes evenly spaced tokens, not random ones.
/// Tensors: lora_A, lora_B, router.weight.
template <std::floating_point T>
class BasicMoELoRA {
 public:
  using Scalar = T;
  using Config = MoELoRAConfig;

  BasicMoELoRA(const MoELoRAConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : config_(config),
        balance_(detail::share_of_loss(config.router_aux_loss_coef, site)),
        contrast_(detail::share_of_loss(config.contrastive_loss_coef, site)) {
    config.validate();
    detail::require_plain("MoELoRA", site);
    experts_ = {config.num_experts, config.rank,       config.alpha,
                site.in_features,   site.out_features, context};
    router_ = {config.num_experts, site.in_features, false, 0, context};
  }

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    const auto rows = detail::as_rows(x);
    const auto r = route(router_(rows), config_.top_k, true);
    if (balance_ > 0 || contrast_ > 0)
      pending_.leave(x.tape(),
                     [this, r, rows,
                      counted = counted_rows(x.tape().template context<ForwardContext>(),
                                             rows.rows())] { return losses(rows, r, counted); });
    const auto low = experts_.low(graft::dropout(rows, config_.dropout));
    const auto y = linear(base, x);
    return add(y, reshape(experts_.mixed(low, r.weights), y.shape()));
  }
  BasicVar<T> auxiliary_loss(BasicTape<T>& tape) const { return pending_.take(tape); }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    experts_.list(list);
    router_.list(list);
    return list;
  }
  std::string merge_reason() const {
    return "MoELoRA chooses its experts token by token; a weight cannot hold that";
  }
  static MethodInfo info() {
    return {.peft_type = "MOELORA",
            .name = "MoELoRA",
            .family = "mixtures",
            .paper = "arXiv:2402.12851",
            .sites = "linear",
            .parameters = "num_experts (r (in + out) + in)",
            .mergeable = false,
            .in_peft = false};
  }

 private:
  BasicVar<T> losses(const BasicVar<T>& rows, const Routing<T>& r,
                     const std::vector<unsigned char>& counted) const {
    BasicVar<T> total;
    if (balance_ > 0) total = scale(balance_loss(r, counted), balance_);
    if (contrast_ <= 0) return total;
    const auto loss = contrast(rows, r, counted);
    if (!loss) return total;
    const auto scaled = scale(loss, contrast_);
    return total ? add(total, scaled) : scaled;
  }
  BasicVar<T> contrast(const BasicVar<T>& rows, const Routing<T>& r,
                       const std::vector<unsigned char>& counted) const {
    std::vector<Index> tokens;
    for (Index m = 0; m < rows.rows(); ++m)
      if (counted.empty() || counted[static_cast<std::size_t>(m)] != 0) tokens.push_back(m);
    if (const Index most = config_.contrastive_tokens.value_or(0);
        most > 0 && most < std::ssize(tokens)) {
      std::vector<Index> some;
      for (Index i = 0; i < most; ++i)
        some.push_back(tokens[static_cast<std::size_t>(i * std::ssize(tokens) / most)]);
      tokens = std::move(some);
    }
    std::vector<BasicVar<T>> parts;
    std::vector<std::int32_t> group;
    for (Index e = 0; e < experts_.experts(); ++e) {
      std::vector<Index> own;
      for (const Index m : tokens) {
        const auto first = r.chosen.begin() + m * r.k;
        if (std::find(first, first + r.k, static_cast<std::int32_t>(e)) != first + r.k)
          own.push_back(m);
      }
      if (own.empty()) continue;
      group.insert(group.end(), own.size(), static_cast<std::int32_t>(e));
      parts.push_back(experts_.plain(gather_rows(rows, own), e));
    }
    if (parts.empty()) return {};
    auto outputs = concat_along(0, parts);
    std::vector<Index> kept;
    std::vector<std::int32_t> kept_group;
    for (Index i = 0; i < outputs.rows(); ++i) {
      const T* o = outputs.value().data() + i * outputs.cols();
      if (kernels::dot(o, o, outputs.cols()) < static_cast<T>(1e-12)) continue;
      kept.push_back(i);
      kept_group.push_back(group[static_cast<std::size_t>(i)]);
    }
    if (std::ssize(kept) < outputs.rows()) {
      if (kept.empty()) return {};
      outputs = gather_rows(outputs, kept);
    }
    const auto unit = div(outputs, add_scalar(norm_last(outputs), static_cast<T>(1e-6)));
    return contrastive_loss(unit, kept_group, config_.temperature);
  }

  MoELoRAConfig config_;
  T balance_, contrast_;
  LoRAExperts<T> experts_;
  ExpertRouter<T> router_;
  detail::PendingLoss<T> pending_;
};

using MoELoRA = BasicMoELoRA<float>;

}  // namespace graft::inline v0_1
