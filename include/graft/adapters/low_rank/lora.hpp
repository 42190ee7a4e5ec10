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
  BasicLoRA(const LoRAConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : rank_(config.rank),
        dropout_(config.dropout),
        scaling_(static_cast<T>(config.scaling())),
        conv_(site.conv),
        expert_(site.expert) {
    config.validate();
    if (rank_ % conv_.groups != 0)
      throw ValueError(concat("LoRA: rank ", rank_, " of ", site.path, ", expected a multiple of ",
                              conv_.groups, " groups"));
    if (!expert_.parameter.empty()) {
      for (Index i = 0; i < site.nesting; ++i) prefix_ += "base_layer.";
      if (config.dropout > 0 || config.lora_bias || config.fan_in_fan_out)
        throw ValueError(
            concat("LoRA: dropout, lora_bias and fan_in_fan_out do not exist on the "
                   "parameter ",
                   expert_.parameter, " of ", site.path));
      const std::string key = concat(site.path, ".", expert_.parameter, ".");
      if (!context.shared.contains(key + "A")) {
        auto factors = initial_factors(config, site, context);
        a_ = context.shared.get(key + "A", [&] { return factors.a; });
        b_ = context.shared.get(
            key + "B", [&] { return factors.b; }, config.trains_b());
      } else {
        a_ = context.shared.get(key + "A", [] { return BasicTensor<T>{}; });
        b_ = context.shared.get(key + "B", [] { return BasicTensor<T>{}; });
      }
      return;
    }
    auto factors = initial_factors(config, site, context);
    a_ = BasicParameter<T>(factors.a);
    b_ = BasicParameter<T>(factors.b, config.trains_b());
    if (conv_.groups > 1) {
      const Index out = site.out_features, width = rank_ / conv_.groups;
      for (Index o = 0; o < out; ++o)
        for (Index k = 0; k < width; ++k)
          group_positions_.push_back(o * rank_ + o / (out / conv_.groups) * width + k);
    }
    if (factors.bias) bias_ = BasicParameter<T>(factors.bias);
  }
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
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(2);
    list[0] = {.name = prefix_ + "lora_A.weight",
               .parameter = a_,
               .index = {},
               .file_shape = conv_.weight_shape(rank_, conv_.in_channels),
               .group = "lora_A"};
    list[1] = {.name = prefix_ + "lora_B.weight",
               .parameter = b_,
               .index = {},
               .file_shape = conv_.pointwise_shape(b_.shape()[0], rank_ / conv_.groups),
               .group = "lora_B"};
    if (bias_)
      list.push_back({.name = "lora_B.bias",
                      .parameter = bias_,
                      .index = {},
                      .file_shape = {},
                      .group = "lora_B"});
    return list;
  }

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
