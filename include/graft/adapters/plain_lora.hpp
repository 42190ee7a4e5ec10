#pragma once

#include <optional>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/sublayer.hpp"

namespace graft::inline v0_1::detail {

/// y = base(x) + α/r · drop(x) Aᵀ Bᵀ: the update that methods train while they do something else
/// around it or at other layers. A: [r, in], uniform; B: [out, r], zero. Trained: r (in + out).
template <std::floating_point T>
class PlainLoRA {
 public:
  using Scalar = T;

  /// @throws ValueError for a rank below one
  PlainLoRA(Index rank, double alpha, double dropout, const LinearSiteInfo<T>& site,
            InitContext<T>& context)
      : scaling_(static_cast<T>(alpha / static_cast<double>(rank))), dropout_(dropout) {
    if (rank < 1) throw ValueError(concat("LoRA: rank ", rank, ", expected 1 or more"));
    const Index in = site.in_features;
    a_ = BasicParameter<T>(kaiming_uniform_tensor<T>(context, {rank, in}, in));
    b_ = constant<T>({site.out_features, rank}, 0);
  }
  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    return linear_low_rank(base, x, graft::dropout(x, dropout_), tape.parameter(a_),
                           tape.parameter(b_), scaling_);
  }
  std::optional<LowRankTerm<T>> low_rank_term() const {
    return LowRankTerm<T>{a_, b_, scaling_, dropout_};
  }
  std::vector<AdapterTensor<T>> tensors() const {
    auto list = std::vector{named("lora_A.weight", a_), named("lora_B.weight", b_)};
    list[0].group = "lora_A";
    list[1].group = "lora_B";
    return list;
  }

 private:
  T scaling_;
  double dropout_;
  BasicParameter<T> a_, b_;
};

}  // namespace graft::inline v0_1::detail
