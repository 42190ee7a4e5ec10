#pragma once

#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/representation/reft.hpp"

namespace graft::inline v0_1 {

using ConsReftConfig = ReftConfig<ReftKind::consreft>;

/// ConsReFT: Φ(h) = h + (b − h Rᵀ) R, R Rᵀ = I: in the space of the rows of R every state gets the
/// coordinates b.
///
/// h: [n, d], R: [r, d], b: [r]; trained a site: r d + r (untied twice). Starts at random (R
/// orthonormal, b uniform in [0, 1)) and is never the identity. Merges as LoReFT, with M = I − Rᵀ
/// R. Source: Wu et al. 2024 (arXiv:2404.03592), an ablation of the authors' program. How R is kept
/// orthonormal: as in LoReFT.
template <std::floating_point T>
class ConsReftEdit {
 public:
  using Scalar = T;
  using Config = ConsReftConfig;

  ConsReftEdit(const Config& config, Index d, InitContext<T>& context)
      : rows_("R", config.rank, d, config.householder(), context),
        b_(detail::fresh<T>(context, {config.rank}, [](TorchGenerator& g, BasicTensor<T>& t) {
          g.uniform(t.data(), t.size(), 0, 1);
        })) {}
  BasicVar<T> operator()(const BasicVar<T>& h) const {
    auto& tape = h.tape();
    const auto r = rows_(tape);
    return add(h, matmul(sub(tape.parameter(b_), detail::rows_product(h, r)), r));
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
using BasicConsReft = BasicReft<ConsReftEdit<T>>;
using ConsReft = BasicConsReft<float>;

template <std::floating_point T>
struct ConsReftMethod : ReftRowsMethod<ConsReftEdit<T>> {
  static MethodInfo info() {
    return {.peft_type = "CONSREFT",
            .name = "ConsReFT",
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
