#pragma once

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/effective_weight.hpp"
#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"

namespace graft::inline v0_1 {

/// Configuration of PERP.
struct PERPConfig {
  Index rank = 16;
  double alpha = 32;
  std::string lora_type = "mask_lora";  ///< mask_lora, scale_lora or lora_prune
  std::string bias = "all";             ///< trained biases: all or none
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "PERP";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("lora_alpha", alpha);
    v("lora_type", lora_type);
    v("bias", bias);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for a rank below one or an unknown word.
  void validate() const {
    if (rank < 1) throw ValueError(concat("PERP: r ", rank, ", expected at least 1"));
    if (lora_type != "mask_lora" && lora_type != "scale_lora" && lora_type != "lora_prune")
      throw ValueError(concat("PERP: lora_type '", lora_type,
                              "', expected mask_lora, scale_lora or lora_prune"));
    if (bias != "all" && bias != "none")
      throw ValueError(concat("PERP: bias '", bias, "', expected all or none"));
  }
};

/// PERP, retraining of a pruned layer, P = 1[W ≠ 0], s = alpha / r:
///   mask_lora: W + s P ⊙ (B A);   scale_lora: W ⊙ (B A);   lora_prune: W + s B A, and the merge
///   multiplies the update by P.
///
/// A: [r, in], B: [out, r]; trained: r (in + out), and the biases of the model if `bias` is all. A
/// ~ U(±1/√in), B = 0, or all elements 1/√r for scale_lora: the identity at the start. Merges;
/// zeros stay zeros; lora_prune changes the output by merging. Source: Zimmer et al. 2023
/// (arXiv:2312.15230), section 3. Tensors: lora_A.weight, lora_B.weight, bias.
template <std::floating_point T>
class BasicPERP {
 public:
  using Scalar = T;
  using Config = PERPConfig;

  static MethodInfo info() {
    return {.peft_type = "PERP",
            .name = "PERP",
            .family = "selection",
            .paper = "arXiv:2312.15230",
            .sites = "linear",
            .parameters = "r (in + out) + out",
            .in_peft = false};
  }

  BasicPERP(const PERPConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : type_((config.validate(), config.lora_type)),
        scaling_(static_cast<T>(config.alpha / static_cast<double>(config.rank))) {
    const Index r = config.rank, in = site.in_features, out = site.out_features;
    auto a = BasicTensor<T>::zeros({r, in}), b = BasicTensor<T>::zeros({out, r});
    if (type_ == "scale_lora") {
      const T one = static_cast<T>(1 / std::sqrt(static_cast<double>(r)));
      a = BasicTensor<T>::full({r, in}, one);
      b = BasicTensor<T>::full({out, r}, one);
    } else if (!context.loading) {
      a = detail::kaiming_uniform_tensor<T>(context.generator, {r, in}, in);
    }
    a_ = BasicParameter<T>(std::move(a));
    b_ = BasicParameter<T>(std::move(b));
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicPERP(const PERPConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicPERP(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    if (type_ == "lora_prune" && !tape.options().merging)
      return linear_low_rank(base, x, x, tape.parameter(a_), tape.parameter(b_), scaling_);
    return detail::effective_weight(
        base, x,
        [a = a_, b = b_, s = scaling_, type = type_, root = &detail::root_of(base)](
            BasicTape<T>& t) { return effective(t, type, a, b, s, weight_of(*root)); });
  }
  /// ‖X W_denseᵀ − X W'ᵀ‖², the loss of layer-wise reconstruction on inputs X. `pruned`: the frozen
  /// weight.
  BasicVar<T> reconstruction_loss(BasicTape<T>& tape, const BasicTensor<T>& inputs,
                                  const BasicTensor<T>& dense, const BasicTensor<T>& pruned) const {
    const auto w = type_ == "lora_prune"
                       ? add(tape.constant(pruned),
                             scale(matmul(tape.parameter(b_), tape.parameter(a_)), scaling_))
                       : effective(tape, type_, a_, b_, scaling_, pruned);
    return sum(square(matmul(tape.constant(inputs), sub(tape.constant(dense), w), Transpose::no,
                             Transpose::yes)));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(2);
    list[0].name = "lora_A.weight";
    list[0].parameter = a_;
    list[1].name = "lora_B.weight";
    list[1].parameter = b_;
    return list;
  }

 private:
  static BasicVar<T> effective(BasicTape<T>& tape, const std::string& type,
                               const BasicParameter<T>& a, const BasicParameter<T>& b, T s,
                               const BasicTensor<T>& w) {
    const auto product = matmul(tape.parameter(b), tape.parameter(a));
    if (type == "scale_lora") return mul(product, tape.constant(w));
    auto kept = BasicTensor<T>::empty(w.shape());
    for (Index i = 0; i < w.size(); ++i) kept[i] = w[i] != T{0} ? s : T{0};
    return add(tape.constant(w), mul(product, tape.constant(kept)));
  }

  std::string type_;
  T scaling_;
  BasicParameter<T> a_, b_;
};

using PERP = BasicPERP<float>;

}  // namespace graft::inline v0_1
