#pragma once

#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/representation/reft.hpp"

namespace graft::inline v0_1 {

using NoReftConfig = ReftConfig<ReftKind::noreft>;

/// NoReFT: Φ(h) = h + (a(h W₁ᵀ + b) − h W₂ᵀ) W₂, LoReFT without the orthonormal rows.
///
/// h: [n, d], W₁, W₂: [r, d], b: [r]; trained a site: 2 r d + r (untied twice). Starts at random
/// (uniform ±1/√d), which is not the identity; W₁ = W₂, b = 0 is. Merges as LoReFT, with M = I +
/// W₂ᵀ (W₁ − W₂). Source: Wu et al. 2024 (arXiv:2404.03592), an ablation of the authors' program.
template <std::floating_point T>
class NoReftEdit {
 public:
  using Scalar = T;
  using Config = NoReftConfig;

  NoReftEdit(const Config& config, Index d, InitContext<T>& context)
      : activation_(config.activation),
        w1_(detail::linear_start<T>({config.rank, d}, d, context)),
        b_(detail::linear_start<T>({config.rank}, d, context)),
        w2_(detail::linear_start<T>({config.rank, d}, d, context)) {}
  BasicVar<T> operator()(const BasicVar<T>& h) const {
    auto& tape = h.tape();
    const auto w1 = tape.parameter(w1_), w2 = tape.parameter(w2_), b = tape.parameter(b_);
    if (!activation_) return add(h, matmul(add(detail::rows_product(h, sub(w1, w2)), b), w2));
    const auto target = detail::activated(activation_, add(detail::rows_product(h, w1), b));
    return add(h, matmul(sub(target, detail::rows_product(h, w2)), w2));
  }
  std::vector<std::pair<std::string, BasicParameter<T>>> tensors() const {
    return {{"W1", w1_}, {"W2", w2_}, {"b", b_}};
  }
  bool affine() const { return !activation_ || detail::is_identity(*activation_); }

 private:
  std::optional<std::string> activation_;
  BasicParameter<T> w1_, b_, w2_;
};

template <std::floating_point T>
using BasicNoReft = BasicReft<NoReftEdit<T>>;
using NoReft = BasicNoReft<float>;

template <std::floating_point T>
struct NoReftMethod : ReftMethodBase<NoReftEdit<T>> {
  static MethodInfo info() {
    return {.peft_type = "NOREFT",
            .name = "NoReFT",
            .family = "representation",
            .paper = "arXiv:2404.03592",
            .sites = "hidden, linear",
            .parameters = "2 r out + r; untied twice",
            .mergeable = false,
            .in_peft = false,
            .identity_at_init = false};
  }
};

}  // namespace graft::inline v0_1
