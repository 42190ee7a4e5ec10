#pragma once

#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/representation/reft.hpp"

namespace graft::inline v0_1 {

using LobiReftConfig = ReftConfig<ReftKind::lobireft>;

/// LobiReFT: Φ(h) = h + b R, R Rᵀ = I: a bias in the space of the rows of R, the same for every
/// state.
///
/// h: [n, d], R: [r, d], b: [r]; trained a site: r d + r (untied twice). Starts at random (R
/// orthonormal, b uniform in [0, 1)), which is not the identity; b = 0 is. Merges into the bias of
/// a linear layer where every token is edited. Source: Wu et al. 2024 (arXiv:2404.03592), an
/// ablation of the authors' program. How R is kept orthonormal: as in LoReFT.
template <std::floating_point T>
class LobiReftEdit {
 public:
  using Scalar = T;
  using Config = LobiReftConfig;

  LobiReftEdit(const Config& config, Index d, InitContext<T>& context)
      : rows_("R", config.rank, d, config.householder(), context),
        b_(detail::fresh<T>(context, {config.rank}, [](TorchGenerator& g, BasicTensor<T>& t) {
          g.uniform(t.data(), t.size(), 0, 1);
        })) {}
  BasicVar<T> operator()(const BasicVar<T>& h) const {
    auto& tape = h.tape();
    return add(h, matmul(reshape(tape.parameter(b_), {1, b_.size()}), rows_(tape)));
  }
  std::vector<std::pair<std::string, BasicParameter<T>>> tensors() const {
    return {rows_.tensor(), {"b", b_}};
  }
  bool affine() const { return true; }

 private:
  OrthonormalRows<T> rows_;
  BasicParameter<T> b_;
};

template <std::floating_point T>
using BasicLobiReft = BasicReft<LobiReftEdit<T>>;
using LobiReft = BasicLobiReft<float>;

template <std::floating_point T>
struct LobiReftMethod : ReftRowsMethod<LobiReftEdit<T>> {
  static MethodInfo info() {
    return {.peft_type = "LOBIREFT",
            .name = "LobiReFT",
            .family = "representation",
            .paper = "arXiv:2404.03592",
            .sites = "hidden, linear",
            .parameters = "r out + r; untied twice",
            .mergeable = false,
            .in_peft = false,
            .identity_at_init = false};
  }
};

}  // namespace graft::inline v0_1
