#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/effective_weight.hpp"
#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/quantized/group_size.hpp"
#include "graft/autograd/ops/fake_quantise.hpp"

namespace graft::inline v0_1 {

/// Configuration of LR-QAT.
struct LRQATConfig {
  Index rank = 32;
  double alpha = 1;
  Index bits = 4;
  std::string downcast = "";  ///< "Qm.n" with m + n = 8 (empty: m = bits); "int", "bf16" or "none"
  Index group_size = 0;       ///< inputs that share a scale; 0: the row
  double p = 2;               ///< of the error that the first scale minimises
  std::vector<double> ratios = {0.5, 0.55, 0.6, 0.65, 0.7, 0.75,
                                0.8, 0.85, 0.9, 0.95, 1.0};  ///< scales that are tried
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "LR_QAT";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("lora_alpha", alpha);
    v("bits", bits);
    v("downcast", downcast);
    v("group_size", group_size);
    v("p", p);
    v("ratios", ratios);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for numbers out of range or an unknown down-cast.
  void validate() const {
    if (rank < 1 || group_size < 0 || !(p > 0))
      throw ValueError(concat("LR-QAT: r ", rank, ", group_size ", group_size, " and p ", p));
    detail::check_bits("LR-QAT", bits);
    if (ratios.empty() ||
        !std::all_of(ratios.begin(), ratios.end(), [](double v) { return v > 0; }))
      throw ValueError("LR-QAT: expected positive ratios");
    if (downcast != "int" && downcast != "bf16" && downcast != "none") fraction_bits();
  }
  /// n of "Qm.n". @throws ValueError for anything else
  int fraction_bits() const {
    if (downcast.empty()) return static_cast<int>(8 - bits);
    if (downcast.size() == 4 && downcast[0] == 'Q' && downcast[2] == '.') {
      const int whole = downcast[1] - '0', fraction = downcast[3] - '0';
      if (whole >= 1 && fraction >= 0 && whole + fraction == 8) return fraction;
    }
    throw ValueError(concat("LR-QAT: downcast '", downcast,
                            "', expected Qm.n with m + n = 8, int, bf16 or none"));
  }
};

/// For each group of `group` neighbours of a row, the scale ratio · max |w| / (2^(b−1) − 1) with
/// the smallest Σ |w − ŵ|^p, ŵ = s clamp(round(w / s), −2^(b−1), 2^(b−1) − 1); the first of equal
/// ones. A group of zeros has scale 1. `errors`, if given, receives the sums, [ratios, out, in /
/// group].
template <std::floating_point T>
BasicTensor<T> lr_qat_scale(const BasicTensor<T>& weight, Index bits, Index group, double p,
                            const std::vector<double>& ratios, BasicTensor<T>* errors = nullptr) {
  const Index groups = detail::groups_of_row("LR-QAT", group, weight.cols());
  auto scale = BasicTensor<T>::ones({weight.rows(), groups});
  const double low = -std::exp2(static_cast<double>(bits - 1)), high = -low - 1;
  if (errors != nullptr)
    *errors = BasicTensor<T>::zeros({std::ssize(ratios), weight.rows(), groups});
  for (Index k = 0; k < scale.size(); ++k) {
    const T* w = weight.data() + k * group;
    double largest = 0, best = 0;
    for (Index i = 0; i < group; ++i)
      largest = std::max(largest, std::abs(static_cast<double>(w[i])));
    if (largest == 0) continue;
    for (std::size_t r = 0; r < ratios.size(); ++r) {
      const double s = ratios[r] * largest / high;
      double error = 0;
      for (Index i = 0; i < group; ++i) {
        const auto value = static_cast<double>(w[i]);
        error +=
            std::pow(std::abs(value - s * std::clamp(std::nearbyint(value / s), low, high)), p);
      }
      if (errors != nullptr)
        (*errors)[static_cast<Index>(r) * scale.size() + k] = static_cast<T>(error);
      if (r == 0 || error < best) {
        best = error;
        scale[k] = static_cast<T>(s);
      }
    }
  }
  return scale;
}

/// LR-QAT: y = x Ŵᵀ + b, Ŵ = s clamp(round(Φ + (α/r) B A), −2^(b−1), 2^(b−1) − 1).
///
/// Φ = φ(W / s₀): the frozen weight in units of its first scale, kept in 8 bits: clamp(round(2ⁿ W /
/// s₀), −128, 127) / 2ⁿ for the down-cast "Qm.n" (an error of at most 2^(−n−1) where nothing is cut
/// off); "int" keeps integers of b bits, "bf16" and "none" keep floats. A: [r, in] ~ U(±1/√in), B:
/// [out, r], zero; s: [out] (with group_size g: [out, in / g]), first s₀ of `lr_qat_scale`.
/// Trained: r (in + out) + out. Gradients: straight through the rounding, zero where the rounded
/// value is outside. At the start the rounded layer, not the float one. Merges: integers (`codes`)
/// and s; Ŵ is built again in the backward pass. The paper trains s with 0 or 1e-5 and A, B with
/// 1e-3 (optimiser group "quantiser"). Φ is made from W whenever an adapter is made or loaded, or
/// given. Source: Bondarenko et al. 2024 (arXiv:2406.06385). Tensors: lora_A.weight,
/// lora_B.weight, quant_scale.
template <std::floating_point T>
class BasicLRQAT {
 public:
  using Scalar = T;
  using Config = LRQATConfig;

  static MethodInfo info() {
    return {.peft_type = "LR_QAT",
            .name = "LR-QAT",
            .family = "quantized",
            .paper = "arXiv:2406.06385",
            .sites = "linear",
            .parameters = "r (in + out) + out; with group_size: out in / group_size for out",
            .in_peft = false,
            .identity_at_init = false,
            .exact_gradient = false};
  }

  /// @throws ValueError if the group does not divide the inputs.
  BasicLRQAT(const LRQATConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : scaling_(
            (config.validate(), static_cast<T>(config.alpha / static_cast<double>(config.rank)))),
        low_(-std::exp2(static_cast<T>(config.bits - 1))),
        high_(-low_ - 1) {
    const Index in = site.in_features, out = site.out_features, r = config.rank;
    const Index group = config.group_size == 0 ? in : config.group_size;
    a_ = BasicParameter<T>(detail::kaiming_uniform_tensor<T>(context, {r, in}, in));
    b_ = BasicParameter<T>(BasicTensor<T>::zeros({out, r}));
    const auto w = site.weight();
    auto scale = lr_qat_scale(w, config.bits, group, config.p, config.ratios);
    auto phi = w.clone();
    for (Index i = 0; i < phi.size(); ++i) phi[i] /= scale[i / group];
    down_cast(config, phi);
    scale_ = BasicParameter<T>(config.group_size == 0 ? scale.reshape({out}) : scale);
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicLRQAT(const LRQATConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicLRQAT(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  static LRQATConfig example() { return {.rank = 2, .bits = 3}; }

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    return detail::effective_weight(base, x, [method = *this](BasicTape<T>& tape) {
      return scaled_integers(method.in_steps(tape), tape.parameter(method.scale_), method.low_,
                             method.high_);
    });
  }
  /// Φ in fixed point: values codes · 2^−fraction_bits, row-major. @throws ShapeError for another
  /// number of codes
  void set_fixed_point(std::vector<std::int8_t> codes, int fraction_bits) {
    if (std::ssize(codes) != b_.shape()[0] * a_.shape()[1])
      throw ShapeError(concat("LR-QAT: ", codes.size(), " codes for [", b_.shape()[0], ", ",
                              a_.shape()[1], "]"));
    fixed_ = std::make_shared<const std::vector<std::int8_t>>(std::move(codes));
    step_ = std::exp2(static_cast<T>(-fraction_bits));
    real_ = {};
  }
  /// Empty if Φ is kept in floats.
  std::vector<std::int8_t> fixed_point() const {
    return fixed_ ? *fixed_ : std::vector<std::int8_t>();
  }
  /// The integers of the merged weight, row-major.
  std::vector<std::int8_t> codes() const {
    BasicTape<T> tape({.gradients = false});
    const auto steps = in_steps(tape);
    std::vector<std::int8_t> result;
    for (const T v : steps.value())
      result.push_back(static_cast<std::int8_t>(std::clamp(std::nearbyint(v), low_, high_)));
    return result;
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(3);
    list[0].name = "lora_A.weight";
    list[0].parameter = a_;
    list[1].name = "lora_B.weight";
    list[1].parameter = b_;
    list[2].name = "quant_scale";
    list[2].parameter = scale_;
    list[2].group = "quantiser";
    return list;
  }

 private:
  void down_cast(const LRQATConfig& config, BasicTensor<T>& phi) {
    if (config.downcast == "none") {
      real_ = phi;
      return;
    }
    if (config.downcast == "bf16") {
      for (T& v : phi) {
        const T unit = std::exp2(static_cast<T>(v == T{0} ? 0 : std::ilogb(v) - 7));
        v = std::nearbyint(v / unit) * unit;
      }
      real_ = phi;
      return;
    }
    const bool whole = config.downcast == "int";
    const int bits = whole ? 0 : config.fraction_bits();
    const T low = whole ? low_ : T{-128}, high = whole ? high_ : T{127};
    std::vector<std::int8_t> codes;
    for (const T v : phi)
      codes.push_back(static_cast<std::int8_t>(
          std::clamp(std::nearbyint(v * std::exp2(static_cast<T>(bits))), low, high)));
    set_fixed_point(std::move(codes), bits);
  }
  /// Φ + (α/r) B A
  BasicVar<T> in_steps(BasicTape<T>& tape) const {
    auto phi = real_;
    if (!phi) {
      phi = BasicTensor<T>::empty({b_.shape()[0], a_.shape()[1]});
      std::transform(fixed_->begin(), fixed_->end(), phi.begin(),
                     [this](std::int8_t code) { return step_ * static_cast<T>(code); });
    }
    return add(tape.constant(phi), scale(matmul(tape.parameter(b_), tape.parameter(a_)), scaling_));
  }

  T scaling_, low_, high_, step_ = 1;
  BasicParameter<T> a_, b_, scale_;
  std::shared_ptr<const std::vector<std::int8_t>> fixed_;
  BasicTensor<T> real_;
};

using LRQAT = BasicLRQAT<float>;

}  // namespace graft::inline v0_1
