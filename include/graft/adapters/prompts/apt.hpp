#pragma once

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"

namespace graft::inline v0_1 {

/// Configuration of approximated prompt tuning.
struct AptConfig {
  Index num_virtual_tokens = 100;
  Index r = 4;
  double scaling = 1;
  bool learn_scale = false;  ///< a trained factor, which begins at 0, in place of `scaling`

  static constexpr const char* kPeftType = "APT";

  template <class Visitor>
  void fields(Visitor& v) {
    v("num_virtual_tokens", num_virtual_tokens);
    v("r", r);
    v("scaling", scaling);
    optional_field(v, "learn_scale", learn_scale, false);
  }
  /// @throws ValueError for a size below 1.
  void validate() const {
    if (num_virtual_tokens < 1 || r < 1)
      throw ValueError(concat("APT: num_virtual_tokens ", num_virtual_tokens, ", r ", r,
                              ", expected at least 1"));
  }
};

/// Approximated prompt tuning: attention(u) + s · softmax(u K_Pᵀ / √d) P, K_P = P + P θ₁ θ₂, for
/// each token by itself; u: what the attention reads, normalised where the model does so before it.
///
/// P: [tokens, d], θ₁: [d, r], θ₂: [r, d]; trained: tokens · d + 2 d r an attention. With
/// `learn_scale` s is trained too, from 0 on: the identity at the start, otherwise not; does not
/// merge. No heads. Source: Wu et al. 2023, arXiv:2306.15706, section 3. Tensors: apt_prompt,
/// apt_theta1, apt_theta2 and apt_scale at the end of the attention.
template <std::floating_point T>
class BasicApt {
 public:
  using Scalar = T;
  using Config = AptConfig;

  BasicApt(const AptConfig& config, Index width, InitContext<T>& context)
      : scaling_(static_cast<T>(config.scaling)),
        prompt_(normal({config.num_virtual_tokens, width}, context)),
        theta1_(normal({width, config.r}, context)),
        theta2_(BasicTensor<T>::zeros({config.r, width})) {
    if (config.learn_scale) scale_ = BasicParameter<T>(BasicTensor<T>::zeros({1}));
  }

  BasicVar<T> apply(const BasicVar<T>& input, const BasicVar<T>& output, const BasicVar<T>&) const {
    auto& tape = output.tape();
    const auto p = tape.parameter(prompt_);
    const auto keys = add(p, matmul(matmul(p, tape.parameter(theta1_)), tape.parameter(theta2_)));
    const T by = static_cast<T>(1 / std::sqrt(static_cast<double>(p.cols())));
    const auto weights = softmax(scale(matmul(input, keys, Transpose::no, Transpose::yes), by));
    const auto delta = matmul(weights, p);
    return add(output, scale_ ? mul(delta, tape.parameter(scale_)) : scale(delta, scaling_));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(3);
    list[0].name = "apt_prompt";
    list[0].parameter = prompt_;
    list[1].name = "apt_theta1";
    list[1].parameter = theta1_;
    list[2].name = "apt_theta2";
    list[2].parameter = theta2_;
    if (scale_) list.push_back(detail::named("apt_scale", scale_));
    return list;
  }

 private:
  static BasicTensor<T> normal(const Shape& shape, InitContext<T>& context) {
    return context.loading ? BasicTensor<T>::zeros(shape)
                           : detail::normal_tensor<T>(context.generator, shape, 0.02);
  }
  T scaling_;
  BasicParameter<T> prompt_, theta1_, theta2_, scale_;
};

template <std::floating_point T>
struct AptMethod {
  using Scalar = T;
  using Config = AptConfig;
  static MethodInfo info() {
    return {.peft_type = "APT",
            .name = "Approximated prompt tuning",
            .family = "prompts",
            .paper = "arXiv:2306.15706",
            .sites = "hidden (attention)",
            .parameters = "num_virtual_tokens d + 2 d r",
            .mergeable = false,
            .in_peft = false,
            .identity_at_init = false};
  }
  static bool targets(const Config&, const std::string&) { return true; }
  static std::shared_ptr<HiddenPart<T>> hidden(const Config& config, const HiddenSiteInfo<T>& site,
                                               InitContext<T>& context) {
    if (site.role != HiddenRole::attention) return nullptr;
    return hidden_part(BasicApt<T>(config, site.width, context));
  }
};

}  // namespace graft::inline v0_1
