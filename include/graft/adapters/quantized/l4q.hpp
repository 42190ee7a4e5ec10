#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "graft/adapters/effective_weight.hpp"
#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/quantized/group_size.hpp"
#include "graft/autograd/ops/fake_quantise.hpp"

namespace graft::inline v0_1 {

/// Configuration of L4Q.
struct L4QConfig {
  Index rank = 4;
  double alpha = 4;
  Index bits = 4;
  Index group_size = 128;
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "L4Q";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("lora_alpha", alpha);
    v("bits", bits);
    v("group_size", group_size);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for a rank below one or bits outside of 2 … 8.
  void validate() const {
    if (rank < 1) throw ValueError(concat("L4Q: r ", rank));
    detail::check_bits("L4Q", bits);
  }
};

/// L4Q: y = x Wqᵀ + b, Wq = σ round(clamp((W + s B A − β) / σ, −2^(b−1), 2^(b−1) − 1)) + β, one σ
/// and β for the inputs of a group.
///
/// A: [r, in] ~ U(±1/√in), B: [out, r], zero; σ: [out, in / g], max(|min W| / 2^(b−1), |max W| /
/// (2^(b−1) − 1)) of the group; β: [out, in / g], zero. Trained: r (in + out) + 2 out in / g.
/// Gradients as `lsq_quantise`: entries outside of the range give none to A and B. At the start
/// plain quantisation of W, not the float layer. Merges: the result is σ, β and integers of b bits
/// (`codes`). Wq is built again in the backward pass. The paper trains A, B with 5e-5 and σ, β with
/// 1e-5 (optimiser group "quantiser"). Source: Jeon et al. 2024 (arXiv:2402.04902).
/// Tensors: lora_A.weight, lora_B.weight, quant_scale, quant_offset.
template <std::floating_point T>
class BasicL4Q {
 public:
  using Scalar = T;
  using Config = L4QConfig;

  static MethodInfo info() {
    return {.peft_type = "L4Q",
            .name = "L4Q",
            .family = "quantized",
            .paper = "arXiv:2402.04902",
            .sites = "linear",
            .parameters = "r (in + out) + 2 out in / g, g = group_size",
            .in_peft = false,
            .identity_at_init = false,
            .exact_gradient = false};
  }

  /// @throws ValueError if the group does not divide the inputs.
  BasicL4Q(const L4QConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : scaling_(
            (config.validate(), static_cast<T>(config.alpha / static_cast<double>(config.rank)))),
        low_(-std::exp2(static_cast<T>(config.bits - 1))),
        high_(-low_ - 1) {
    const Index in = site.in_features, out = site.out_features, r = config.rank;
    const Index g = config.group_size, groups = detail::groups_of_row("L4Q", g, in);
    a_ = BasicParameter<T>(detail::kaiming_uniform_tensor<T>(context, {r, in}, in));
    b_ = BasicParameter<T>(BasicTensor<T>::zeros({out, r}));
    offset_ = BasicParameter<T>(BasicTensor<T>::zeros({out, groups}));
    auto scale = BasicTensor<T>::ones({out, groups});
    if (!context.loading) {
      const auto w = site.weight();
      for (Index k = 0; k < scale.size(); ++k) {
        const auto [least, most] = std::minmax_element(w.data() + k * g, w.data() + (k + 1) * g);
        const T s = std::max(std::abs(*least) / -low_, std::abs(*most) / high_);
        if (s > T{0}) scale[k] = s;
      }
    }
    scale_ = BasicParameter<T>(scale);
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicL4Q(const L4QConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicL4Q(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  static L4QConfig example() { return {.bits = 3, .group_size = 4}; }

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    return detail::effective_weight(
        base, x, [method = *this, root = &detail::root_of(base)](BasicTape<T>& tape) {
          const auto w = method.adapted(tape, weight_of(*root));
          return lsq_quantise(w, tape.parameter(method.scale_), tape.parameter(method.offset_),
                              method.low_, method.high_);
        });
  }
  /// The integers of the merged weight, row-major.
  std::vector<std::int8_t> codes(const BasicTensor<T>& weight) const {
    BasicTape<T> tape({.gradients = false});
    const auto w = adapted(tape, weight).value();
    const Index g = weight.cols() / scale_.shape()[1];
    std::vector<std::int8_t> result;
    for (Index i = 0; i < w.size(); ++i) {
      const Index k = i / g;
      const T v = (w[i] - offset_.value()[k]) / scale_.value()[k];
      result.push_back(static_cast<std::int8_t>(std::nearbyint(std::clamp(v, low_, high_))));
    }
    return result;
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(4);
    list[0].name = "lora_A.weight";
    list[0].parameter = a_;
    list[1].name = "lora_B.weight";
    list[1].parameter = b_;
    list[2].name = "quant_scale";
    list[2].parameter = scale_;
    list[3].name = "quant_offset";
    list[3].parameter = offset_;
    list[2].group = list[3].group = "quantiser";
    return list;
  }

 private:
  /// W + s B A
  BasicVar<T> adapted(BasicTape<T>& tape, const BasicTensor<T>& weight) const {
    return add(tape.constant(weight),
               scale(matmul(tape.parameter(b_), tape.parameter(a_)), scaling_));
  }

  T scaling_, low_, high_;
  BasicParameter<T> a_, b_, scale_, offset_;
};

using L4Q = BasicL4Q<float>;

}  // namespace graft::inline v0_1
