#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "graft/adapters/adapted.hpp"
#include "graft/adapters/low_rank/lora_factors.hpp"
#include "graft/autograd/ops/take_shared.hpp"

namespace graft::inline v0_1 {

/// QA-LoRA as PEFT's `use_qalora` has it: y = base(x) + s · (in / g) pool(drop(x)) Aᵀ Bᵀ, pool the
/// means of groups of g = `qalora_group_size` neighbouring inputs.
///
/// A: [rank, in / g], B: [out, rank]; trained: rank (in / g + out). The same weight for the inputs
/// of a group, so that the update fits into the zero points of a base quantised in these groups.
/// The identity at the start (B = 0); merges into a dense weight. Source: Xu et al. 2023
/// (arXiv:2309.14717), algorithm 1, which sums a group where PEFT takes in / g times the mean;
/// kept. PEFT runs it on GPTQ layers only; here any base will do. Tensors: as LoRA.
template <std::floating_point T>
class BasicLoRAQA {
 public:
  using Scalar = T;
  using Config = LoRAConfig;

  /// @throws ValueError if the group does not divide the inputs.
  BasicLoRAQA(const LoRAConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : factors_("use_qalora", config, site, context) {
    if (factors_.bias) throw ValueError(concat("LoRA: lora_bias with use_qalora at ", site.path));
    const Index g = config.qalora_group_size, in = site.in_features, r = factors_.rank;
    if (g < 1 || in % g != 0)
      throw ValueError(concat("LoRA: qalora_group_size ", g, " for ", in, " inputs of ", site.path,
                              ", expected a divisor"));
    auto a = BasicTensor<T>::zeros({r, in / g});
    if (!context.loading)
      a = detail::kaiming_uniform_tensor<T>(context.generator, {r, in / g}, in / g);
    factors_.a = BasicParameter<T>(a);
    std::vector<std::int32_t> groups;
    for (Index k = 0; k < r; ++k)
      for (Index i = 0; i < in; ++i)
        groups.push_back(static_cast<std::int32_t>(k * (in / g) + i / g));
    groups_ = std::make_shared<const std::vector<std::int32_t>>(std::move(groups));
    factors_.scaling *= static_cast<T>(in / g) / static_cast<T>(g);
  }

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto a =
        take_shared(tape.parameter(factors_.a), groups_, {factors_.rank, base.in_features()});
    return linear_low_rank(base, x, graft::dropout(x, factors_.dropout), a,
                           tape.parameter(factors_.b), factors_.scaling);
  }
  std::vector<AdapterTensor<T>> tensors() const { return factors_.tensors(); }

 private:
  LoRAFactors<T> factors_;
  std::shared_ptr<const std::vector<std::int32_t>> groups_;
};

}  // namespace graft::inline v0_1
