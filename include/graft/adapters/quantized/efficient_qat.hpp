#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/effective_weight.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/quantized/group_size.hpp"
#include "graft/autograd/ops/fake_quantise.hpp"
#include "graft/quant/uniform.hpp"

namespace graft::inline v0_1 {

/// Configuration of EfficientQAT.
struct EfficientQATConfig {
  Index bits = 4;
  Index group_size = 64;
  std::string phase = "block_ap";  ///< all is trained; "e2e_qp": the scales alone
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "EFFICIENT_QAT";

  template <class Visitor>
  void fields(Visitor& v) {
    v("bits", bits);
    v("group_size", group_size);
    v("phase", phase);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for bits outside of 2 … 8 or an unknown phase.
  void validate() const {
    detail::check_bits("EfficientQAT", bits);
    if (phase != "block_ap" && phase != "e2e_qp")
      throw ValueError(concat("EfficientQAT: phase '", phase, "', expected block_ap or e2e_qp"));
  }
};

/// EfficientQAT: y = x Ŵᵀ + b, Ŵ = s (clamp(round(w / s) + round(z), 0, 2^b − 1) − round(z)), one s
/// and z for the inputs of a group.
///
/// Phase "block_ap" trains w: [out, in] and s, z: [out, in / g], first those of `quantise_affine`;
/// the loss is that of a block against its float outputs, block by block, which is for the training
/// loop. Phase "e2e_qp" keeps the integers q and z of that (`codes`, `zeros` of the finished first
/// phase) and trains s on the task: ∂L/∂s = Σ over the group of dŴ ⊙ (q − z). Trained: out in + 2
/// out in / g, or out in / g. Gradients as `affine_quantise`. At the start the quantised layer, not
/// the float one. Merges: the result is s, z and integers. Integers of the second phase are made
/// from the frozen weight whenever an adapter is made or loaded, or given. Source: Chen et al. 2024
/// (arXiv:2407.11062), eq. 1 to 4. Tensors: weight, quant_scale, quant_zero; or quant_scale.
template <std::floating_point T>
class BasicEfficientQAT {
 public:
  using Scalar = T;
  using Config = EfficientQATConfig;

  static MethodInfo info() {
    return {.peft_type = "EFFICIENT_QAT",
            .name = "EfficientQAT",
            .family = "quantized",
            .paper = "arXiv:2407.11062",
            .sites = "linear",
            .parameters = "; out in + 2 out in / g, g = group_size; phase e2e_qp: out in / g",
            .in_peft = false,
            .identity_at_init = false,
            .exact_gradient = false};
  }

  /// @throws ValueError if the group does not divide the inputs.
  BasicEfficientQAT(const EfficientQATConfig& config, const LinearSiteInfo<T>& site,
                    InitContext<T>&)
      : top_((config.validate(), static_cast<T>((1 << config.bits) - 1))) {
    const Index g = config.group_size, in = site.in_features, out = site.out_features;
    const Index groups = detail::groups_of_row("EfficientQAT", g, in);
    const auto w = site.weight();
    const auto quantised =
        quant::quantise_affine(std::span<const T>(w.data(), static_cast<std::size_t>(w.size())),
                               config.bits, g, static_cast<T>(1e-4));
    scale_ = BasicParameter<T>(BasicTensor<T>::from(quantised.scales, {out, groups}));
    if (config.phase == "block_ap") {
      weight_ = BasicParameter<T>(w.clone());
      zero_ = BasicParameter<T>(BasicTensor<T>::from(quantised.zeros, {out, groups}));
    } else {
      set_codes(std::vector<std::uint8_t>(quantised.codes.begin(), quantised.codes.end()),
                std::vector<std::uint8_t>(quantised.zeros.begin(), quantised.zeros.end()), in);
    }
  }
  /// For a layer of one's own.
  template <Linear L>
  BasicEfficientQAT(const EfficientQATConfig& config, const L& base)
      : BasicEfficientQAT(config, site_info(base), StandaloneInit<T>(0).context()) {}

  static EfficientQATConfig example() { return {.bits = 3, .group_size = 4}; }

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    return detail::effective_weight(
        base, x, [method = *this](BasicTape<T>& tape) { return method.weight(tape); });
  }
  /// The integers of phase e2e_qp: q, row-major, and z, one a group.
  /// @throws ShapeError for other numbers of them
  void set_codes(const std::vector<std::uint8_t>& codes, const std::vector<std::uint8_t>& zeros,
                 Index in_features) {
    const Index groups = scale_.shape()[1], out = scale_.shape()[0];
    if (std::ssize(codes) != out * in_features || std::ssize(zeros) != out * groups)
      throw ShapeError(concat("EfficientQAT: ", codes.size(), " codes and ", zeros.size(),
                              " zeros for [", out, ", ", in_features, "] in ", groups, " groups"));
    std::vector<std::int16_t> steps(codes.size());
    const auto each = static_cast<std::size_t>(in_features / groups);
    for (std::size_t i = 0; i < codes.size(); ++i)
      steps[i] = static_cast<std::int16_t>(codes[i] - zeros[i / each]);
    steps_ = std::make_shared<const std::vector<std::int16_t>>(std::move(steps));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(weight_ ? 3 : 1);
    list[0].name = "quant_scale";
    list[0].parameter = scale_;
    list[0].group = "quantiser";
    if (weight_) {
      list[1].name = "weight";
      list[1].parameter = weight_;
      list[2].name = "quant_zero";
      list[2].parameter = zero_;
      list[2].group = "quantiser";
    }
    return list;
  }

 private:
  BasicVar<T> weight(BasicTape<T>& tape) const {
    const auto scale = tape.parameter(scale_);
    if (weight_)
      return affine_quantise(tape.parameter(weight_), scale, tape.parameter(zero_), top_);
    const Index out = scale_.shape()[0], in = std::ssize(*steps_) / std::max<Index>(1, out);
    const auto steps = tape.constant(BasicTensor<T>::from(*steps_, {out, in}));
    return reshape(mul(detail::in_groups(steps, scale.shape()), detail::one_a_group(scale)),
                   {out, in});
  }

  T top_;
  BasicParameter<T> weight_, scale_, zero_;
  std::shared_ptr<const std::vector<std::int16_t>> steps_;  // q − z
};

using EfficientQAT = BasicEfficientQAT<float>;

}  // namespace graft::inline v0_1
