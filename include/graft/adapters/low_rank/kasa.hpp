#pragma once

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "graft/adapters/adapted.hpp"
#include "graft/adapters/low_rank/lora_factors.hpp"
#include "graft/tensor/decompositions.hpp"

namespace graft::inline v0_1 {

/// `kasa_config` of LoRA's configuration, names as in PEFT.
struct KaSAConfig {
  double beta = 1e-4;   ///< weight of ‖λ‖²
  double gamma = 1e-3;  ///< weight of ‖Bᵀ B − I‖_F + ‖A Aᵀ − I‖_F

  template <class Visitor>
  void fields(Visitor& v) {
    v("beta", beta);
    v("gamma", gamma);
  }
  void validate() const {
    if (!(beta >= 0 && gamma >= 0))
      throw ValueError(concat("KaSA: beta ", beta, " and gamma ", gamma, ", expected at least 0"));
  }
};

/// KaSA: y = x W_pᵀ + b + s · drop(x) Aᵀ diag(λ) Bᵀ, W_p the weight without its rank smallest
/// singular values.
///
/// A: [rank, in], B: [out, rank], λ: [rank]; trained: rank (in + out + 1). The frozen weight is
/// replaced when the adapter is made or read, for good, so the model with a new adapter is not the
/// old one (B = 0 adds nothing); removing the adapter does not bring the weight back. Merges. Loss:
/// β ‖λ‖² + γ (‖Bᵀ B − I‖_F + ‖A Aᵀ − I‖_F), summed over the sites (PEFT leaves it to the caller).
/// Source: Wang et al. 2024 (arXiv:2412.06071), eq. 5 to 11. Deviation: none; norms in the loss are
/// not squared, as in PEFT. Tensors: lora_A.weight, lora_B.weight, lora_diag.
template <std::floating_point T>
class BasicKaSA {
 public:
  using Scalar = T;
  using Config = LoRAConfig;

  /// @throws ValueError for a rank of min(in, out) or more, a GPT-2 Conv1D, or a weight that cannot
  /// be replaced.
  BasicKaSA(const LoRAConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : factors_("kasa_config", config, site, context),
        options_(nested_config<KaSAConfig>("kasa_config", config.kasa_config)) {
    const Index r = factors_.rank, limit = std::min(site.in_features, site.out_features);
    if (site.fan_in_fan_out)
      throw ValueError(concat("KaSA: ", site.path, " keeps its weight as [in, out]"));
    if (r >= limit)
      throw ValueError(concat("KaSA: rank ", r, " of ", site.path, ", expected less than ", limit));
    if (!site.weight || !site.replace_weight)
      throw ValueError(concat("KaSA: the weight of ", site.path, " cannot be replaced"));
    auto diagonal = BasicTensor<T>::zeros({r});
    if (!context.loading) diagonal = detail::normal_tensor<T>(context.generator, {r}, 1);
    diagonal_ = BasicParameter<T>(diagonal);
    truncate(site, r);
  }

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto b = mul(tape.parameter(factors_.b), tape.parameter(diagonal_));
    return factors_.with_bias(linear_low_rank(base, x, graft::dropout(x, factors_.dropout),
                                              tape.parameter(factors_.a), b, factors_.scaling));
  }
  BasicVar<T> auxiliary_loss(BasicTape<T>& tape) const {
    const auto a = tape.parameter(factors_.a), b = tape.parameter(factors_.b);
    const auto identity = tape.constant(BasicTensor<T>::identity(factors_.rank));
    const auto distance = [&](const BasicVar<T>& gram) {
      constexpr T tiny = std::numeric_limits<T>::min();
      return sqrt(clamp(sum(square(sub(gram, identity))), tiny, std::numeric_limits<T>::max()));
    };
    return add(graft::scale(sum(square(tape.parameter(diagonal_))), static_cast<T>(options_.beta)),
               graft::scale(add(distance(matmul(b, b, Transpose::yes, Transpose::no)),
                                distance(matmul(a, a, Transpose::no, Transpose::yes))),
                            static_cast<T>(options_.gamma)));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    auto list = factors_.tensors();
    list.push_back({.name = "lora_diag", .parameter = diagonal_, .index = {}, .file_shape = {}});
    return list;
  }

 private:
  /// Drops the r smallest singular values of the weight, unless they are zero already.
  static void truncate(const LinearSiteInfo<T>& site, Index r) {
    const Index in = site.in_features, out = site.out_features;
    auto w = site.weight().clone();
    const auto d = svd(w);
    const Index count = d.s.size(), kept = count - r;
    const double none = static_cast<double>(std::numeric_limits<float>::epsilon()) *
                        static_cast<double>(std::max(in, out)) * static_cast<double>(d.s[0]);
    if (static_cast<double>(d.s[kept]) <= none) return;
    for (Index o = 0; o < out; ++o)
      for (Index i = 0; i < in; ++i) {
        T noise = 0;
        for (Index k = kept; k < count; ++k) noise += d.u(o, k) * d.s[k] * d.v(i, k);
        w(o, i) -= noise;
      }
    site.replace_weight(w);
  }

  LoRAFactors<T> factors_;
  KaSAConfig options_;
  BasicParameter<T> diagonal_;
};

using KaSA = BasicKaSA<float>;

}  // namespace graft::inline v0_1
