#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/adapted.hpp"
#include "graft/adapters/adapter.hpp"
#include "graft/adapters/low_rank/lora_config.hpp"
#include "graft/adapters/low_rank/lora_init.hpp"
#include "graft/autograd/low_rank_term.hpp"

namespace graft::inline v0_1 {

/// LoRA: y = base(x) + s · (drop(x) Aᵀ + 0) Bᵀ [+ s · b_B], s = alpha / rank.
///
/// A: [rank, in], B: [out, rank], optional b_B: [out]; trained: rank · (in + out) (+ out) elements.
/// The low-rank term is added inside the base's own product where the base can do that. Identity at
/// the start for the inits that say so (B = 0, or B A = 0, or the base loses what the factors
/// hold). With the init "mica" A alone is trained. Merges: W + s B A. A grouped convolution keeps
/// its groups in B [out, rank / groups]: the outputs of a group see the ranks of that group; such
/// an update crosses the groups of the base and does not merge. Matrices of E experts stacked in
/// one parameter share A [rank E, in] (expert by expert) and B [out, rank E] (rank by rank).
/// Source: Hu et al. 2021 (arXiv:2106.09685), eq. 3; rsLoRA: Kalajdzievski 2023 (arXiv:2312.03732),
/// s = alpha / √rank. Tensors: lora_A.weight, lora_B.weight, lora_B.bias, as in Hugging Face PEFT.
template <std::floating_point T>
class BasicLoRA {
 public:
  using Scalar = T;
  using Config = LoRAConfig;

  /// @throws ValueError for a configuration that cannot be, see LoRAConfig and initial_factors.
  BasicLoRA(const LoRAConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context);
  /// For a layer of one's own; values are drawn from `seed`. Inits that rewrite the base are
  /// refused here.
  template <Linear L>
  BasicLoRA(const LoRAConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicLoRA(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    auto a = tape.parameter(a_), b = tape.parameter(b_);
    if (!group_positions_.empty()) b = scatter(b, group_positions_, {b.rows(), rank_});
    if (!expert_.parameter.empty()) {
      const Index out = b.rows();
      a = slice(a, 0, expert_.index * rank_, rank_);
      b = reshape(slice(reshape(b, {out * rank_, expert_.count}), 1, expert_.index, 1),
                  {out, rank_});
    }
    auto y = linear_low_rank(base, x, graft::dropout(x, dropout_), a, b, scaling_);
    return bias_ ? add(y, scale(tape.parameter(bias_), scaling_)) : y;
  }
  std::vector<AdapterTensor<T>> tensors() const;

  /// s · B A, where the layer is a plain one without a bias behind B.
  std::optional<LowRankTerm<T>> low_rank_term() const {
    if (bias_ || conv_.groups > 1 || !expert_.parameter.empty()) return std::nullopt;
    return LowRankTerm<T>{a_, b_, scaling_, dropout_};
  }

  std::string merge_reason() const {
    if (conv_.groups == 1) return {};
    return "the weight of a grouped convolution cannot hold a low-rank update; keep the adapter "
           "beside it";
  }

  Index rank() const { return rank_; }
  T scaling() const { return scaling_; }
  const BasicParameter<T>& a() const { return a_; }
  const BasicParameter<T>& b() const { return b_; }

 private:
  Index rank_;
  double dropout_;
  T scaling_;
  ConvGeometry conv_;
  ExpertGeometry expert_;
  std::string prefix_;  ///< of the names in files
  std::vector<Index>
      group_positions_;  ///< of the elements of B in [out, rank], if there are groups
  BasicParameter<T> a_;
  BasicParameter<T> b_;
  BasicParameter<T> bias_;
};

using LoRA = BasicLoRA<float>;

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/adapters/low_rank/impl/lora_impl.hpp"
#endif
