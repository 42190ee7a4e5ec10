#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/prompts/prompt_table.hpp"

namespace graft::inline v0_1 {

/// Configuration of gradient-regulated meta-prompt learning.
struct GramConfig {
  Index num_tokens = 16;
  double inner_lr = 0.1;

  static constexpr const char* kPeftType = "GRAM";

  template <class Visitor>
  void fields(Visitor& v) {
    v("num_tokens", num_tokens);
    v("inner_lr", inner_lr);
  }
  /// @throws ValueError without tokens.
  void validate() const {
    if (num_tokens < 1) throw ValueError(concat("GRAM: num_tokens ", num_tokens));
  }
};

/// Gradient-regulated meta-prompt learning: an initial prompt and a function that regulates the
/// gradients which adapt it: P' = P − η φ(g) ⊙ g, g = ∇_P L_support(P), φ(g) = σ(g Wᵀ + b) for each
/// token; the outer step lowers L_query(P').
///
/// P: [tokens, d], W: [d, d], b: [d]; trained: tokens · d + d² + d. φ starts near one (W = 0, b =
/// 5). First order: g is a constant in both of its places. Second order: the product of the Hessian
/// of L_support with a vector is a central difference of its gradients, exact to ten digits in
/// double precision and to three in float. The result is an initial prompt. Source: Li et al. 2023,
/// arXiv:2303.06571, section 3. Deviation: φ has no low-rank form. Tensors: prompt_embeddings,
/// gram.gate.
template <std::floating_point T>
class BasicGram {
 public:
  using Scalar = T;
  using Config = GramConfig;

  BasicGram(const GramConfig& config, Index width, InitContext<T>& context)
      : rate_((config.validate(), static_cast<T>(config.inner_lr))),
        prompt_(context.loading ? BasicTensor<T>::zeros({config.num_tokens, width})
                                : detail::normal_tensor<T>(context.generator,
                                                           {config.num_tokens, width}, 0.02)),
        weight_(BasicTensor<T>::zeros({width, width})),
        bias_(BasicTensor<T>::full({width}, T{5})) {}

  /// g = ∇_P of `loss(tape, prompt)` at a prompt, and the loss.
  template <class Loss>
  static std::pair<BasicTensor<T>, T> gradient(const BasicTensor<T>& at, Loss&& loss) {
    BasicTape<T> tape;
    const auto p = tape.leaf(at);
    const auto value = loss(tape, p);
    tape.backward(value);
    return {p.grad().clone(), value.item()};
  }
  /// P' for the task of `support`.
  template <class Loss>
  BasicTensor<T> adapted(Loss&& support) const {
    BasicTape<T> tape({.gradients = false});
    return inner(tape, tape.constant(gradient(prompt_.value(), support).first)).value().clone();
  }
  /// Adds the gradients of L_query(P') to those of P, W and b; returns L_query(P').
  template <class Support, class Query>
  T outer(Support&& support, Query&& query, bool second_order = false) const {
    BasicTape<T> tape;
    const auto g = tape.leaf(gradient(prompt_.value(), support).first);
    const auto loss = query(tape, inner(tape, g));
    tape.backward(loss);
    if (!second_order) return loss.item();
    const auto v = g.grad();
    double size = 0, scale = 1;
    for (const T x : v) size = std::max(size, std::abs(static_cast<double>(x)));
    for (const T x : prompt_.value()) scale = std::max(scale, std::abs(static_cast<double>(x)));
    if (size == 0) return loss.item();
    const T h = static_cast<T>(std::cbrt(static_cast<double>(std::numeric_limits<T>::epsilon())) *
                               scale / size);
    const auto at = [&](T sign) {
      auto moved = prompt_.value().clone();
      for (Index i = 0; i < moved.size(); ++i) moved[i] += sign * h * v[i];
      return gradient(moved, support).first;
    };
    const auto up = at(1), down = at(-1);
    auto& total = prompt_.mutable_grad();
    for (Index i = 0; i < up.size(); ++i) total[i] += (up[i] - down[i]) / (2 * h);
    return loss.item();
  }
  const BasicParameter<T>& prompt() const { return prompt_; }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(3);
    list[0].name = "prompt_embeddings";
    list[0].parameter = prompt_;
    list[1].name = "gram.gate.weight";
    list[1].parameter = weight_;
    list[2].name = "gram.gate.bias";
    list[2].parameter = bias_;
    return list;
  }

 private:
  BasicVar<T> inner(BasicTape<T>& tape, const BasicVar<T>& g) const {
    const auto phi =
        sigmoid(detail::trained_affine<T>(g, tape.parameter(weight_), tape.parameter(bias_)));
    return sub(tape.parameter(prompt_), scale(mul(phi, g), rate_));
  }
  T rate_;
  mutable BasicParameter<T> prompt_;
  BasicParameter<T> weight_, bias_;
};

using Gram = BasicGram<float>;

}  // namespace graft::inline v0_1
