#pragma once

#include <array>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/low_rank/shared_type.hpp"
#include "graft/adapters/method.hpp"

namespace graft::inline v0_1 {

/// Configuration of MSPLoRA.
struct MSPLoRAConfig {
  Index rank = 64;  ///< of the first level; each further level has half
  double alpha = 16;
  double dropout = 0;  ///< on the input of the branch, while training; the original: 0.05
  Index segments = 3;
  std::string scale = "per_level";  ///< alpha / r_i, or common: alpha / r at every level
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "MSPLORA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("lora_alpha", alpha);
    v("lora_dropout", dropout);
    v("segments", segments);
    v("scale", scale);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for a rank below four, no segments or an unknown word.
  void validate() const {
    if (rank < 4) throw ValueError(concat("MSPLoRA: r ", rank, ", expected at least 4"));
    if (segments < 1) throw ValueError(concat("MSPLoRA: ", segments, " segments"));
    if (scale != "per_level" && scale != "common")
      throw ValueError(concat("MSPLoRA: scale '", scale, "', expected per_level or common"));
  }
};

/// MSPLoRA: y = base(x) + Σ_i s_i · drop(x) A_iᵀ B_iᵀ over three levels: a pair for all layers of a
/// type, one for each segment of them, one for the layer.
///
/// Ranks r, ⌊r/2⌋, ⌊⌊r/2⌋/2⌋; layer k of L is in segment ⌊segments k / L⌋; trained for a type: (r₀
/// + segments r₁ + L r₂)(in + out). A ~ U(±1/√in), B = 0: the identity at the start; merges. Layers
/// of a type need one shape. The levels side by side are one low-rank term. Source: Zhao et al.
/// 2025 (arXiv:2503.21838), section 3; the released code uses the shared levels only in the layer
/// that owns them. Tensors: shared.TYPE.msp_0.*, shared.TYPE.msp_1.SEGMENT.*, msp_2.*.
template <std::floating_point T>
class BasicMSPLoRA {
 public:
  using Scalar = T;
  using Config = MSPLoRAConfig;

  static MethodInfo info() {
    return {.peft_type = "MSPLORA",
            .name = "MSPLoRA",
            .family = "low_rank",
            .paper = "arXiv:2503.21838",
            .sites = "linear",
            .parameters = "; (r/4 + (r + 3 r/2) / L) (in + out)",
            .in_peft = false};
  }

  /// @throws ValueError for layers of one type with different shapes.
  BasicMSPLoRA(const MSPLoRAConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : type_((config.validate(), site.name())), dropout_(config.dropout) {
    const auto [number, count] = detail::place_in_type(site);
    const Index in = site.in_features, out = site.out_features;
    segment_ = number * config.segments / count;
    Index r = config.rank;
    const std::string names[] = {concat("msplora.", type_, ".0"),
                                 concat("msplora.", type_, ".1.", segment_),
                                 concat("msplora.", site.path)};
    for (std::size_t i = 0; i < 3; ++i, r /= 2) {
      scaling_[i] = static_cast<T>(config.alpha /
                                   static_cast<double>(config.scale == "common" ? config.rank : r));
      a_[i] = context.shared.get(names[i] + ".A", [&] {
        return detail::kaiming_uniform_tensor<T>(context, {r, in}, in);
      });
      b_[i] = context.shared.get(names[i] + ".B", [&] { return BasicTensor<T>::zeros({out, r}); });
      if (a_[i].shape() != Shape{r, in} || b_[i].shape() != Shape{out, r})
        throw ValueError(concat("MSPLoRA: ", site.path, " [", out, ", ", in,
                                "] has another shape than others called ", type_,
                                "; target_modules takes names of layers of one shape"));
    }
  }

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    std::vector<BasicVar<T>> a, b;
    for (std::size_t i = 0; i < 3; ++i) {
      a.push_back(tape.parameter(a_[i]));
      b.push_back(scale(tape.parameter(b_[i]), scaling_[i]));
    }
    return linear_low_rank(base, x, graft::dropout(x, dropout_), concat_along(0, a),
                           concat_along(1, b), T{1});
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    for (std::size_t i = 0; i < 3; ++i)
      for (const bool first : {true, false}) {
        const auto& parameter = first ? a_[i] : b_[i];
        const std::string tensor = first ? "lora_A.weight" : "lora_B.weight";
        if (i < 2) {
          list.push_back(detail::type_tensor(
              type_, i == 0 ? "msp_0." + tensor : concat("msp_1.", segment_, ".", tensor),
              parameter));
        } else {
          list.push_back(detail::named("msp_2." + tensor, parameter));
        }
      }
    return list;
  }

 private:
  std::string type_;
  double dropout_;
  Index segment_ = 0;
  std::array<T, 3> scaling_{};
  std::array<BasicParameter<T>, 3> a_, b_;
};

using MSPLoRA = BasicMSPLoRA<float>;

}  // namespace graft::inline v0_1
