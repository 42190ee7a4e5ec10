#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/sublayer.hpp"
#include "graft/autograd/ops/topk_mixture.hpp"

/// What mixtures of experts have in common: which tokens go to which experts, and the losses that
/// keep the experts in balance.
namespace graft::inline v0_1 {

/// Which rows of [batch · tokens] hidden states are no padding; empty: all, or the context says
/// nothing about these rows. Virtual tokens in front of a row count as padding.
inline std::vector<unsigned char> counted_rows(const ForwardContext* context, Index rows) {
  if (context == nullptr || context->token_mask.empty() || context->batch < 1) return {};
  const auto& mask = context->token_mask;
  const Index own = std::ssize(mask) / context->batch, tokens = rows / context->batch;
  if (rows % context->batch != 0 || tokens < own) return {};
  std::vector<unsigned char> counted(static_cast<std::size_t>(rows), 0);
  for (Index b = 0; b < context->batch; ++b)
    std::copy_n(mask.begin() + b * own, own, counted.begin() + (b + 1) * tokens - own);
  return counted;
}

/// The experts of each token and their shares.
template <std::floating_point T>
struct Routing {
  BasicVar<T> probabilities;         ///< [tokens, experts], of all experts
  BasicVar<T> weights;               ///< [tokens, experts], zero for those that were not chosen
  std::vector<std::int32_t> chosen;  ///< [tokens, k], the likeliest first
  Index k = 0;
};

/// The k likeliest experts of each token (all if there are fewer); equal ones in their order.
/// Weights are their probabilities, or these divided by their sum. The choice has no gradient.
template <std::floating_point T>
Routing<T> route(const BasicVar<T>& probabilities, Index k, bool renormalise) {
  const Index tokens = probabilities.rows(), experts = probabilities.cols();
  Routing<T> r;
  r.k = std::min(k, experts);
  r.probabilities = probabilities;
  auto mask = BasicTensor<T>::zeros({tokens, experts});
  r.chosen.reserve(static_cast<std::size_t>(tokens * r.k));
  for (Index m = 0; m < tokens; ++m)
    for (const auto e : largest(probabilities.value().data() + m * experts, experts, r.k)) {
      mask(m, e) = 1;
      r.chosen.push_back(e);
    }
  r.weights =
      r.k == experts ? probabilities : mul(probabilities, probabilities.tape().constant(mask));
  if (renormalise && r.k < experts) r.weights = div(r.weights, sum_axis(r.weights, -1, true));
  return r;
}

/// N Σ_e f_e P_e over the counted tokens: f_e the share of tokens that chose expert e (they sum to
/// k; constant for the gradient), P_e the mean of its probability. Its least value is k.
///
/// Source: Fedus et al. 2021 (arXiv:2101.03961), eq. 4 to 6.
template <std::floating_point T>
BasicVar<T> balance_loss(const Routing<T>& r, const std::vector<unsigned char>& counted) {
  const Index tokens = r.probabilities.rows(), experts = r.probabilities.cols();
  const auto counts = [&](Index m) {
    return counted.empty() || counted[static_cast<std::size_t>(m)] != 0;
  };
  std::vector<double> share(static_cast<std::size_t>(experts), 0.0);
  double total = 0;
  for (Index m = 0; m < tokens; ++m) {
    if (!counts(m)) continue;
    total += 1;
    for (Index i = 0; i < r.k; ++i)
      share[static_cast<std::size_t>(r.chosen[static_cast<std::size_t>(m * r.k + i)])] += 1;
  }
  auto factor = BasicTensor<T>::zeros({tokens, experts});
  if (total > 0)
    for (Index m = 0; m < tokens; ++m)
      for (Index e = 0; e < experts && counts(m); ++e)
        factor(m, e) = static_cast<T>(static_cast<double>(experts) *
                                      share[static_cast<std::size_t>(e)] / (total * total));
  return sum(mul(r.probabilities, r.probabilities.tape().constant(factor)));
}

namespace detail {

/// A loss that a forward pass leaves behind for whoever asks for it on the same tape.
template <std::floating_point T>
class PendingLoss {
 public:
  /// Passes that nobody trains with leave none.
  void leave(BasicTape<T>& tape, std::function<BasicVar<T>()> loss) const {
    const bool wanted = tape.gradients() || tape.training();
    tape_ = wanted ? &tape : nullptr;
    loss_ = wanted ? std::move(loss) : nullptr;
  }
  /// @throws ValueError if the pass ran on another tape, as that of recomputed blocks.
  BasicVar<T> take(BasicTape<T>& tape) const {
    if (!loss_) return {};
    const auto loss = std::exchange(loss_, nullptr);
    if (tape_ != &tape)
      throw ValueError(
          "auxiliary loss of a router: its pass was on another tape; blocks whose activations are "
          "recomputed cannot have one, set its coefficient to 0 or keep the activations");
    return loss();
  }

 private:
  mutable const BasicTape<T>* tape_ = nullptr;
  mutable std::function<BasicVar<T>()> loss_;
};

/// λ over the number of adapted sites: losses of routers are averaged.
template <std::floating_point T>
T share_of_loss(double coefficient, const LinearSiteInfo<T>& site) {
  return static_cast<T>(coefficient /
                        static_cast<double>(std::max<std::size_t>(1, site.all_sites.size())));
}

/// x as [tokens, width].
template <std::floating_point T>
BasicVar<T> as_rows(const BasicVar<T>& x) {
  return reshape(x, {x.rows(), x.cols()});
}

}  // namespace detail

/// N LoRA experts of one linear layer, A: [N, r, in], B: [N, out, r], in files as they are. A
/// begins Kaiming-uniform or normal, B at zero.
template <std::floating_point T>
class LoRAExperts {
 public:
  LoRAExperts() = default;
  LoRAExperts(Index experts, Index rank, double alpha, Index in, Index out, InitContext<T>& context,
              double normal = 0)
      : experts_(experts),
        rank_(rank),
        in_(in),
        out_(out),
        scaling_(static_cast<T>(alpha / static_cast<double>(rank))) {
    a_ = detail::fresh<T>(context, {experts, rank, in}, [&](TorchGenerator& g, BasicTensor<T>& t) {
      const double bound = kaiming_uniform_bound(in, std::sqrt(5.0));
      if (normal > 0)
        g.normal(t.data(), t.size(), 0, normal);
      else
        g.uniform(t.data(), t.size(), -bound, bound);
    });
    b_ = detail::constant<T>({experts, out, rank}, 0);
  }
  Index experts() const { return experts_; }
  /// x A_eᵀ of all experts side by side: [tokens, N r].
  BasicVar<T> low(const BasicVar<T>& x) const {
    return matmul(x, reshape(x.tape().parameter(a_), {experts_ * rank_, in_}), Transpose::no,
                  Transpose::yes);
  }
  /// s Σ_e w_e low_e B_eᵀ; weights: [tokens, N].
  BasicVar<T> mixed(const BasicVar<T>& low, const BasicVar<T>& weights) const {
    const Index tokens = low.rows();
    const auto weighted = mul(reshape(low, {tokens, experts_, rank_}),
                              reshape(scale(weights, scaling_), {tokens, experts_, 1}));
    const auto b = reshape(permute(low.tape().parameter(b_), {1, 0, 2}), {out_, experts_ * rank_});
    return matmul(reshape(weighted, {tokens, experts_ * rank_}), b, Transpose::no, Transpose::yes);
  }
  /// What expert e adds to its tokens x, s x A_eᵀ B_eᵀ.
  BasicVar<T> one_of(const BasicVar<T>& x, Index e) const { return scale(plain(x, e), scaling_); }
  /// x A_eᵀ B_eᵀ for tokens of expert e, without the scaling.
  BasicVar<T> plain(const BasicVar<T>& x, Index e) const {
    const auto a = reshape(slice(x.tape().parameter(a_), 0, e, 1), {rank_, in_});
    return matmul(matmul(x, a, Transpose::no, Transpose::yes), matrix_b(x.tape(), e), Transpose::no,
                  Transpose::yes);
  }
  void list(std::vector<AdapterTensor<T>>& tensors) const {
    tensors.push_back(detail::named("lora_A", a_));
    tensors.push_back(detail::named("lora_B", b_));
  }

 private:
  BasicVar<T> matrix_b(BasicTape<T>& tape, Index e) const {
    return reshape(slice(tape.parameter(b_), 0, e, 1), {out_, rank_});
  }

  Index experts_ = 0, rank_ = 0, in_ = 0, out_ = 0;
  T scaling_ = 1;
  BasicParameter<T> a_, b_;
};

/// softmax(u Wᵀ + b): W: [N, in], b: [N] or none.
template <std::floating_point T>
class ExpertRouter {
 public:
  /// `normal`: standard deviation of W at the start; 0: Kaiming-uniform.
  ExpertRouter() = default;
  ExpertRouter(Index experts, Index in, bool bias, double normal, InitContext<T>& context) {
    w_ = detail::fresh<T>(context, {experts, in}, [&](TorchGenerator& g, BasicTensor<T>& t) {
      const double bound = kaiming_uniform_bound(in, std::sqrt(5.0));
      if (normal > 0)
        g.normal(t.data(), t.size(), 0, normal);
      else
        g.uniform(t.data(), t.size(), -bound, bound);
    });
    if (bias) b_ = detail::constant<T>({experts}, 0);
  }
  BasicVar<T> logits(const BasicVar<T>& u) const {
    auto& tape = u.tape();
    const auto h = matmul(u, tape.parameter(w_), Transpose::no, Transpose::yes);
    return b_ ? add(h, tape.parameter(b_)) : h;
  }
  BasicVar<T> operator()(const BasicVar<T>& u) const { return softmax(logits(u)); }
  void list(std::vector<AdapterTensor<T>>& tensors, const std::string& name = "router") const {
    tensors.push_back(detail::named(name + ".weight", w_));
    if (b_) tensors.push_back(detail::named(name + ".bias", b_));
    for (auto& t : tensors)
      if (t.name.starts_with(name)) t.group = "router";
  }

 private:
  BasicParameter<T> w_, b_;
};

namespace detail {

/// @throws ValueError unless a configuration of routed experts has counts that make sense.
inline void require_experts(std::string_view method, Index experts, Index top_k, Index rank) {
  if (experts < 1 || top_k < 1 || rank < 1)
    throw ValueError(concat(method, ": num_experts ", experts, ", top_k ", top_k, ", r ", rank,
                            ", expected at least 1"));
}
inline void require_dropout(std::string_view method, double dropout) {
  if (!(dropout >= 0 && dropout < 1))
    throw ValueError(concat(method, ": lora_dropout ", dropout, ", expected [0, 1)"));
}
/// @throws ValueError for a convolution or a stack of experts.
template <std::floating_point T>
void require_plain(std::string_view method, const LinearSiteInfo<T>& site) {
  if (!site.conv.kernel.empty() || !site.expert.parameter.empty())
    throw ValueError(concat(method, ": ", site.path, ", expected a plain linear layer"));
}

}  // namespace detail

}  // namespace graft::inline v0_1
