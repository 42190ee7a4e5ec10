#pragma once

#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/representation/reft.hpp"

namespace graft::inline v0_1 {

using LoReftConfig = ReftConfig<ReftKind::loreft>;

/// LoReFT: Φ(h) = h + (a(h Wᵀ + b) − h Rᵀ) R, R Rᵀ = I: in the space of the rows of R the state has
/// the coordinates a(h Wᵀ + b), outside of it it stays.
///
/// h: [n, d], R, W: [r, d], b: [r]; trained a site: 2 r d + r (untied twice). a: none unless the
/// configuration names one. Starts at random (R orthonormal, W and b uniform ±1/√d), which is not
/// the identity; W = R, b = 0 is. Merges into a linear layer where every token is edited and there
/// is no activation: W_o ← (I + Rᵀ (W − R)) W_o, c ← (I + Rᵀ (W − R)) c + Rᵀ b. Source: Wu et al.
/// 2024 (arXiv:2404.03592), eq. 2; positions and their clipping as in the authors' program.
/// Deviations: R is kept orthonormal by a retraction after each step or by Householder vectors, not
/// by torch's matrix map, and the gradient of a retracted R is that of a free matrix.
template <std::floating_point T>
class LoReftEdit {
 public:
  using Scalar = T;
  using Config = LoReftConfig;

  LoReftEdit(const Config& config, Index d, InitContext<T>& context)
      : activation_(config.activation),
        rows_("R", config.rank, d, config.householder(), context),
        w_(detail::linear_start<T>({config.rank, d}, d, context)),
        b_(detail::linear_start<T>({config.rank}, d, context)) {}
  BasicVar<T> operator()(const BasicVar<T>& h) const {
    auto& tape = h.tape();
    const auto r = rows_(tape), w = tape.parameter(w_), b = tape.parameter(b_);
    if (!activation_) return add(h, matmul(add(detail::rows_product(h, sub(w, r)), b), r));
    const auto target = detail::activated(activation_, add(detail::rows_product(h, w), b));
    return add(h, matmul(sub(target, detail::rows_product(h, r)), r));
  }
  std::vector<std::pair<std::string, BasicParameter<T>>> tensors() const {
    return {rows_.tensor(), {"W", w_}, {"b", b_}};
  }
  bool affine() const { return !activation_ || detail::is_identity(*activation_); }

 private:
  std::optional<std::string> activation_;
  OrthonormalRows<T> rows_;
  BasicParameter<T> w_, b_;
};

template <std::floating_point T>
using BasicLoReft = BasicReft<LoReftEdit<T>>;
using LoReft = BasicLoReft<float>;

template <std::floating_point T>
struct LoReftMethod : ReftRowsMethod<LoReftEdit<T>> {
  static MethodInfo info() {
    return {.peft_type = "LOREFT",
            .name = "LoReFT",
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
