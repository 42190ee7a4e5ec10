#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include "graft/autograd/low_rank_term.hpp"
#include "graft/kernels/gemm.hpp"
#include "graft/optim/damped_inverse.hpp"
#include "graft/optim/optimizer.hpp"

namespace graft::inline v0_1 {

struct LoRAFAConfig {
  double learning_rate = 1e-3;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-6;
  double weight_decay = 0;
  bool correct_bias = true;
  double damping = 1e-8;  ///< added to the diagonal of A Aᵀ
  bool bf16_product = false;  ///< round the factors and the result of g (A Aᵀ + δ I)⁻¹ to bfloat16
};

/// LoRA-FA: A stays as it is, and B moves along the projected gradient s⁻² g (A Aᵀ + δ I)⁻¹, the
/// one whose update of the weight is nearest to that of full fine-tuning, by Adam:
///
///     m ← β₁ m + (1 − β₁) g,   v ← β₂ v + (1 − β₂) g²
///     θ ← θ − η √(1 − β₂ᵗ) / (1 − β₁ᵗ) · m / (√v + ε),   θ ← θ (1 − η λ)
///
/// Other parameters follow the same rule with their own gradients. A is no longer trained when the
/// optimiser is made. Memory: 2 elements an element of B. Source: Zhang et al. 2023
/// (arXiv:2308.03303), as the optimiser of Hugging Face PEFT, which multiplies the gradient in
/// bfloat16 where the processor can; `bf16_product` does the same.
template <std::floating_point T>
class BasicLoRAFA final : public BasicOptimizer<T> {
 public:
  /// `others`: what is trained besides the pairs.
  explicit BasicLoRAFA(std::vector<LowRankTerm<T>> pairs, const LoRAFAConfig& config = {},
                       const std::vector<BasicParameter<T>>& others = {})
      : BasicOptimizer<T>({{trained(pairs, others), 1, {}}}, config.learning_rate,
                          config.weight_decay),
        config_(config),
        pairs_(std::move(pairs)) {
    if (!(config.beta1 >= 0 && config.beta1 < 1 && config.beta2 >= 0 && config.beta2 < 1))
      throw ValueError(
          concat("LoRA-FA: betas ", config.beta1, " and ", config.beta2, ", expected [0, 1)"));
    for (const auto& pair : pairs_) {
      pair.a.set_trainable(false);
      pair.a.zero_grad();
    }
  }

  Index moments() const override { return 2; }

 private:
  /// The nearest bfloat16, halfway cases to even.
  static T bf16(T x) {
    auto bits = std::bit_cast<std::uint32_t>(static_cast<float>(x));
    bits = (bits + 0x7fffU + ((bits >> 16) & 1U)) & 0xffff0000U;
    return static_cast<T>(std::bit_cast<float>(bits));
  }
  static std::vector<BasicParameter<T>> trained(const std::vector<LowRankTerm<T>>& pairs,
                                                const std::vector<BasicParameter<T>>& others) {
    std::vector<BasicParameter<T>> list;
    for (const auto& pair : pairs) list.push_back(pair.b);
    for (const auto& p : others) {
      const bool factor = std::any_of(pairs.begin(), pairs.end(),
                                      [&](const auto& pair) { return pair.a == p || pair.b == p; });
      if (!factor) list.push_back(p);
    }
    return list;
  }
  /// s⁻² g (A Aᵀ + δ I)⁻¹ of B, the gradient itself of others.
  BasicTensor<T> direction(const BasicParameter<T>& parameter, double gradient_scale) const {
    auto g = parameter.grad().clone();
    for (T& e : g) e *= static_cast<T>(gradient_scale);
    for (const auto& pair : pairs_) {
      if (!(pair.b == parameter)) continue;
      auto inverse = detail::damped_gram_inverse(pair.a.value(), config_.damping, false);
      if (config_.bf16_product) {
        for (T& e : g) e = bf16(e);
        for (T& e : inverse) e = bf16(e);
      }
      const Index out = g.rows(), r = g.cols();
      auto projected = BasicTensor<T>::empty(g.shape());
      kernels::gemm(false, false, out, r, r, T{1}, g.data(), r, inverse.data(), r, T{0},
                    projected.data(), r);
      const T share = 1 / (pair.scaling * pair.scaling);
      for (T& e : projected) e = config_.bf16_product ? bf16(share * bf16(e)) : share * e;
      return projected;
    }
    return g;
  }
  void update(const BasicParameter<T>& parameter, BasicParameterState<T>& state,
              const typename BasicOptimizer<T>::Settings& settings) override {
    const auto& value = parameter.value();
    if (state.moments.empty())
      state.moments = {BasicTensor<T>::zeros(value.shape()), BasicTensor<T>::zeros(value.shape())};
    const auto g = direction(parameter, settings.gradient_scale);
    const auto t = static_cast<double>(state.steps);
    const double bias = config_.correct_bias ? std::sqrt(1 - std::pow(config_.beta2, t)) /
                                                   (1 - std::pow(config_.beta1, t))
                                             : 1;
    const T b1 = static_cast<T>(config_.beta1), b2 = static_cast<T>(config_.beta2),
            eps = static_cast<T>(config_.eps), step = static_cast<T>(settings.learning_rate * bias),
            keep = static_cast<T>(1 - settings.learning_rate * settings.weight_decay);
    T *p = value.data(), *m = state.moments[0].data(), *v = state.moments[1].data();
    for (Index i = 0; i < value.size(); ++i) {
      m[i] = b1 * m[i] + (1 - b1) * g[i];
      v[i] = b2 * v[i] + (1 - b2) * g[i] * g[i];
      p[i] = (p[i] - step * m[i] / (std::sqrt(v[i]) + eps)) * keep;
    }
  }

  LoRAFAConfig config_;
  std::vector<LowRankTerm<T>> pairs_;
};

using LoRAFA = BasicLoRAFA<float>;

}  // namespace graft::inline v0_1
