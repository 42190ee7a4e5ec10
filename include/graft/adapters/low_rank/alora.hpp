#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "graft/adapters/adapted.hpp"
#include "graft/adapters/low_rank/lora_factors.hpp"

namespace graft::inline v0_1 {

/// For each row of a batch, its token from which an activated adapter runs: the first one of the
/// last occurrence of `invocation` in the row, counted from the first token of this pass (negative:
/// among those that a cache holds); `seq_len` if there is no occurrence.
inline std::vector<Index> invocation_starts(const ForwardContext& context,
                                            const std::vector<std::int32_t>& invocation) {
  std::vector<Index> starts(static_cast<std::size_t>(context.batch), context.seq_len);
  const Index past =
      static_cast<Index>(context.past_ids.size()) / std::max<Index>(1, context.batch);
  if (invocation.empty() ||
      static_cast<Index>(context.ids.size()) != context.batch * context.seq_len)
    return starts;
  for (Index b = 0; b < context.batch; ++b) {
    std::vector<std::int32_t> row(context.past_ids.begin() + b * past,
                                  context.past_ids.begin() + (b + 1) * past);
    row.insert(row.end(), context.ids.begin() + b * context.seq_len,
               context.ids.begin() + (b + 1) * context.seq_len);
    const auto found = std::find_end(row.begin(), row.end(), invocation.begin(), invocation.end());
    if (found != row.end()) starts[static_cast<std::size_t>(b)] = (found - row.begin()) - past;
  }
  return starts;
}

/// Activated LoRA: y = base(x) + s · m ⊙ (drop(x) Aᵀ Bᵀ), m = 1 from the first of the invocation
/// tokens on and 0 before.
///
/// Shapes, count and init as LoRA. m is the last occurrence of `alora_invocation_tokens` in the
/// row's ids; a row without them gets the base model alone, and so does an input without ids. Keys
/// and values of the tokens before the invocation are those of the base model, whose cache can be
/// used again. Does not merge: the weight depends on the token. Source: Greenewald et al. 2025
/// (arXiv:2504.12397). In generation PEFT looks at the prompt only; here invocation tokens that are
/// generated count too. Tensors: as LoRA.
template <std::floating_point T>
class BasicALoRA {
 public:
  using Scalar = T;
  using Config = LoRAConfig;

  BasicALoRA(const LoRAConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : factors_("alora_invocation_tokens", config, site, context) {
    detail::read_config("alora_invocation_tokens", config.alora_invocation_tokens, invocation_);
  }

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto* context = tape.template context<ForwardContext>();
    auto mask = BasicTensor<T>::zeros(x.shape().with_last(1));
    bool any = false;
    if (context != nullptr && context->batch > 0 && mask.size() % context->batch == 0) {
      const auto starts = invocation_starts(*context, invocation_);
      // Positions count from the end, as a sublayer may see fewer tokens than the model.
      const Index tokens = mask.size() / context->batch;
      for (Index b = 0; b < context->batch; ++b) {
        const Index count = context->seq_len - starts[static_cast<std::size_t>(b)];
        for (Index t = std::max<Index>(0, tokens - count); t < tokens; ++t) {
          mask[b * tokens + t] = 1;
          any = true;
        }
      }
    }
    if (!any && !tape.gradients()) return linear(base, x);
    const auto m = tape.constant(mask);
    const auto y =
        linear_low_rank(base, x, mul(graft::dropout(x, factors_.dropout), m),
                        tape.parameter(factors_.a), tape.parameter(factors_.b), factors_.scaling);
    if (!factors_.bias) return y;
    return add(y, mul(m, graft::scale(tape.parameter(factors_.bias), factors_.scaling)));
  }
  std::vector<AdapterTensor<T>> tensors() const { return factors_.tensors(); }
  std::string merge_reason() const {
    return "an activated LoRA runs from its invocation tokens on; a weight cannot hold that";
  }

 private:
  LoRAFactors<T> factors_;
  std::vector<std::int32_t> invocation_;
};

using ALoRA = BasicALoRA<float>;

}  // namespace graft::inline v0_1
