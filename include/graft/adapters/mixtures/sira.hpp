#pragma once

#include <cmath>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/adapted.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/mixtures/router.hpp"

namespace graft::inline v0_1 {

/// Configuration of SiRA.
struct SiRAConfig {
  Index num_experts = 16;
  Index top_k = 4;
  Index rank = 4;
  double alpha = 16;
  double dropout = 0;  ///< on the input of the experts, while training
  /// c of the capacity ⌈c · tokens · k / N⌉ of an expert; none: no limit.
  std::optional<double> capacity_factor = 1.25;
  bool limit_evaluation = true;  ///< the capacity holds outside of training too
  double expert_dropout = 0.5;   ///< chance that an expert is out for a token, while training
  double router_aux_loss_coef = 1e-2;
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "SIRA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("num_experts", num_experts);
    v("top_k", top_k);
    v("r", rank);
    v("lora_alpha", alpha);
    v("lora_dropout", dropout);
    v("capacity_factor", capacity_factor);
    v("limit_evaluation", limit_evaluation);
    v("expert_dropout", expert_dropout);
    v("router_aux_loss_coef", router_aux_loss_coef);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for counts below one, a capacity that is not above zero or a dropout
  /// outside of [0, 1).
  void validate() const {
    detail::require_experts("SiRA", num_experts, top_k, rank);
    detail::require_dropout("SiRA", dropout);
    if (!(expert_dropout >= 0 && expert_dropout < 1))
      throw ValueError(concat("SiRA: expert_dropout ", expert_dropout, ", expected [0, 1)"));
    if (capacity_factor && !(*capacity_factor > 0))
      throw ValueError(
          concat("SiRA: capacity_factor ", *capacity_factor, ", expected more than 0"));
  }
};

/// SiRA: y = base(x) + s Σ_{e ∈ top-k, accepted} p_e x A_eᵀ B_eᵀ, p = softmax(x W_gᵀ); an expert
/// accepts its first C = ⌈c · tokens · k / N⌉ tokens in their order, the others go without it.
///
/// While training an expert is out for a token with probability `expert_dropout`: its logit is −∞
/// before the softmax; k experts stay at least. A: [N, r, in], B: [N, out, r], W_g: [N, in], s =
/// alpha / r; trained: N r (in + out) + N in. The identity at the start (B = 0; A Kaiming-uniform,
/// W_g N(0, 0.02)). Probabilities are not divided by their sum. Loss: router_aux_loss_coef · L_bal
/// of the choices before the cut, averaged over all routers. Padding takes no place of an expert
/// and does not count. Does not merge, and the rows of a batch depend on each other. Source: Zhu et
/// al. 2023 (arXiv:2311.09179); there is no code, expert dropout as in the paper's section 3.3 is
/// read as above. Tensors: lora_A, lora_B, router.weight.
template <std::floating_point T>
class BasicSiRA {
 public:
  using Scalar = T;
  using Config = SiRAConfig;

  BasicSiRA(const SiRAConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : config_(config), coefficient_(detail::share_of_loss(config.router_aux_loss_coef, site)) {
    config.validate();
    detail::require_plain("SiRA", site);
    experts_ = {config.num_experts, config.rank,       config.alpha,
                site.in_features,   site.out_features, context};
    router_ = {config.num_experts, site.in_features, false, 0.02, context};
  }

  /// Experts that are out in the next passes in training, in place of random ones: [tokens, N], 1 =
  /// out. An empty tensor: random ones again.
  void set_dropped(BasicTensor<T> dropped) { dropped_ = std::move(dropped); }

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto rows = detail::as_rows(x);
    const auto counted = counted_rows(tape.template context<ForwardContext>(), rows.rows());
    auto logits = router_.logits(rows);
    if (const auto out = dropped(tape, rows.rows())) logits = add(logits, tape.constant(out));
    const auto r = route(softmax(logits), config_.top_k, false);
    if (coefficient_ > 0)
      pending_.leave(tape,
                     [r, counted, this] { return scale(balance_loss(r, counted), coefficient_); });
    auto weights = r.weights;
    if (config_.capacity_factor && (tape.training() || config_.limit_evaluation))
      weights = mul(weights, tape.constant(accepted(r, counted)));
    const auto low = experts_.low(graft::dropout(rows, config_.dropout));
    const auto y = linear(base, x);
    return add(y, reshape(experts_.mixed(low, weights), y.shape()));
  }
  BasicVar<T> auxiliary_loss(BasicTape<T>& tape) const { return pending_.take(tape); }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    experts_.list(list);
    router_.list(list);
    return list;
  }
  std::string merge_reason() const {
    return "SiRA chooses its experts token by token; a weight cannot hold that";
  }
  static MethodInfo info() {
    return {.peft_type = "SIRA",
            .name = "SiRA",
            .family = "mixtures",
            .paper = "arXiv:2311.09179",
            .sites = "linear",
            .parameters = "num_experts (r (in + out) + in)",
            .mergeable = false,
            .in_peft = false,
            .rows_apart = false};
  }

 private:
  /// What is added to the logits, far below zero for experts that are out; empty: nothing.
  BasicTensor<T> dropped(BasicTape<T>& tape, Index tokens) const {
    const Index n = config_.num_experts;
    BasicTensor<T> out;
    if (!tape.training()) return {};
    if (dropped_) {
      if (dropped_.size() != tokens * n)
        throw ShapeError(concat("SiRA: ", dropped_.shape().text(), " for ", tokens, " tokens"));
      out = dropped_.clone();
    } else if (config_.expert_dropout > 0) {
      out = BasicTensor<T>::empty({tokens, n});
      TorchGenerator generator(tape.next_random_key());
      generator.uniform(out.data(), out.size(), 0, 1);
      const Index stay = std::min(config_.top_k, n);
      for (Index m = 0; m < tokens; ++m) {
        T* u = out.data() + m * n;
        const auto best = largest(u, n, stay);
        const T least = std::min(static_cast<T>(config_.expert_dropout), u[best.back()]);
        for (Index e = 0; e < n; ++e) u[e] = u[e] < least ? T{1} : T{0};
      }
    } else {
      return {};
    }
    for (T& v : out) v *= static_cast<T>(-1e30);
    return out.reshape({tokens, n});
  }
  /// 1 where a token got a place at an expert.
  BasicTensor<T> accepted(const Routing<T>& r, const std::vector<unsigned char>& counted) const {
    const Index tokens = r.probabilities.rows(), n = config_.num_experts;
    auto mask = BasicTensor<T>::zeros({tokens, n});
    const auto real = counted.empty() ? tokens : std::count(counted.begin(), counted.end(), 1);
    const double places =
        *config_.capacity_factor * static_cast<double>(real * r.k) / static_cast<double>(n);
    const auto capacity = static_cast<Index>(std::ceil(places - 1e-9));
    std::vector<Index> taken(static_cast<std::size_t>(n), 0);
    for (Index m = 0; m < tokens; ++m) {
      if (!counted.empty() && counted[static_cast<std::size_t>(m)] == 0) continue;
      for (Index i = 0; i < r.k; ++i) {
        const auto e = r.chosen[static_cast<std::size_t>(m * r.k + i)];
        if (taken[static_cast<std::size_t>(e)]++ < capacity) mask(m, e) = 1;
      }
    }
    return mask;
  }

  SiRAConfig config_;
  T coefficient_;
  LoRAExperts<T> experts_;
  ExpertRouter<T> router_;
  BasicTensor<T> dropped_;
  detail::PendingLoss<T> pending_;
};

using SiRA = BasicSiRA<float>;

}  // namespace graft::inline v0_1
