#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/representation/reft.hpp"

namespace graft::inline v0_1 {

using DiReftConfig = ReftConfig<ReftKind::direft>;

/// DiReFT: Φ(h) = h + a(h W₁ᵀ + b) W₂, a low-rank map of the state added to it.
///
/// h: [n, d], W₁, W₂: [r, d], b: [r]; trained a site: 2 r d + r (untied twice). W₂ is free, with
/// `orthonormal` its rows stay orthonormal. Starts at random (uniform ±1/√d, orthonormal rows),
/// which is not the identity; W₁ = 0, b = 0 is. Merges as LoReFT, with M = I + W₂ᵀ W₁. Source: Wu
/// et al. 2024 (arXiv:2404.03592), section 3.2. The authors' program has the orthonormal form as
/// `direft`, the free one as `nodireft`; free is the paper's definition and the default here.
template <std::floating_point T>
class DiReftEdit {
 public:
  using Scalar = T;
  using Config = DiReftConfig;

  DiReftEdit(const Config& config, Index d, InitContext<T>& context)
      : activation_(config.activation), orthonormal_(config.orthonormal) {
    w1_ = detail::linear_start<T>({config.rank, d}, d, context);
    b_ = detail::linear_start<T>({config.rank}, d, context);
    if (orthonormal_)
      rows_ = OrthonormalRows<T>("W2", config.rank, d, config.householder(), context);
    else
      w2_ = detail::linear_start<T>({config.rank, d}, d, context);
  }
  BasicVar<T> operator()(const BasicVar<T>& h) const {
    auto& tape = h.tape();
    const auto low = detail::activated(
        activation_, add(detail::rows_product(h, tape.parameter(w1_)), tape.parameter(b_)));
    return add(h, matmul(low, orthonormal_ ? rows_(tape) : tape.parameter(w2_)));
  }
  std::vector<std::pair<std::string, BasicParameter<T>>> tensors() const {
    auto w2 = orthonormal_ ? rows_.tensor() : std::pair(std::string("W2"), w2_);
    return {{"W1", w1_}, std::move(w2), {"b", b_}};
  }
  bool affine() const { return !activation_ || detail::is_identity(*activation_); }

 private:
  std::optional<std::string> activation_;
  bool orthonormal_;
  OrthonormalRows<T> rows_;
  BasicParameter<T> w1_, w2_, b_;
};

template <std::floating_point T>
using BasicDiReft = BasicReft<DiReftEdit<T>>;
using DiReft = BasicDiReft<float>;

template <std::floating_point T>
struct DiReftMethod : ReftMethodBase<DiReftEdit<T>> {
  static MethodInfo info() {
    return {.peft_type = "DIREFT",
            .name = "DiReFT",
            .family = "representation",
            .paper = "arXiv:2404.03592",
            .sites = "hidden, linear",
            .parameters = "2 r out + r; untied twice",
            .mergeable = false,
            .in_peft = false,
            .identity_at_init = false};
  }
  static std::unique_ptr<Procedure<T>> procedure(const DiReftConfig& config,
                                                 const std::vector<PlacedPart<T>>& parts) {
    if (!config.orthonormal || config.householder()) return nullptr;
    return std::make_unique<RetractRows<T>>(parts, "_W2");
  }
};

}  // namespace graft::inline v0_1
