#pragma once

#include <string>
#include <vector>

#include "graft/adapters/kronecker/factors.hpp"
#include "graft/adapters/sublayer.hpp"

namespace graft::inline v0_1 {

/// Configuration of MoKA, a mixture of Kronecker adapters.
struct MoKAConfig {
  std::vector<std::vector<Index>> a_shapes = {{48, 24}, {64, 32}, {96, 32}, {32, 24}};
  std::string gate = "softmax";  ///< N softmax(z), "sigmoid": σ(z), "scalar": z
  double scaling = 1;
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "MOKA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("a_shapes", a_shapes);
    v("gate", gate);
    v("scaling", scaling);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for shapes that are none, or an unknown gate.
  void validate() const {
    if (a_shapes.empty()) throw ValueError("MoKA: a_shapes is empty");
    for (const auto& s : a_shapes)
      if (s.size() != 2 || s[0] < 1 || s[1] < 1)
        throw ValueError("MoKA: a_shapes expected pairs of numbers of at least 1");
    if (gate != "softmax" && gate != "sigmoid" && gate != "scalar")
      throw ValueError(
          concat("MoKA: gate '", gate, "', expected \"softmax\", \"sigmoid\" or \"scalar\""));
  }
};

/// MoKA: y = base(x) + s Σ_t g_t · x (A_t ⊗ B_t)ᵀ, with N terms of shapes of their own and a gate
/// that does not look at the input.
///
/// A_t: [a, c], B_t: [out/a, in/c], z: [N]; trained: Σ (a c + out in / (a c)) + N. z begins at 0 (1
/// for a scalar gate). The identity at the start (B = 0); merges. Source: "MoKA: Mixture of
/// Kronecker Adapters"; the gate's form is this library's choice. Tensors: `moka_A.<t>`,
/// `moka_B.<t>`, moka_gate.
template <std::floating_point T>
class BasicMoKA {
 public:
  using Scalar = T;
  using Config = MoKAConfig;

  static Config example() {
    Config config;
    config.a_shapes = {{16, 8}, {32, 16}};
    return config;
  }
  static MethodInfo info() {
    return {.peft_type = "MOKA",
            .name = "MoKA",
            .family = "kronecker",
            .paper = "MoKA: Mixture of Kronecker Adapters",
            .sites = "linear",
            .parameters = "; sum (a c + out in / (a c)) + N",
            .in_peft = false};
  }

  BasicMoKA(const MoKAConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : scaling_(static_cast<T>(config.scaling)), gate_(config.gate) {
    config.validate();
    for (const auto& s : config.a_shapes) {
      detail::require_division("MoKA", "a_shapes", s[0], site.out_features, site.path);
      detail::require_division("MoKA", "a_shapes", s[1], site.in_features, site.path);
      a_.push_back(detail::drawn_factor<T>(context, {s[0], s[1]}, s[1]));
      b_.push_back(detail::constant<T>({site.out_features / s[0], site.in_features / s[1]}, 0));
    }
    z_ = detail::constant<T>({static_cast<Index>(a_.size())}, gate_ == "scalar" ? 1 : 0);
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicMoKA(const MoKAConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicMoKA(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto z = tape.parameter(z_);
    const auto g = scale(gate_ == "softmax" ? scale(softmax(z), static_cast<T>(a_.size()))
                                            : (gate_ == "sigmoid" ? sigmoid(z) : z),
                         scaling_);
    auto y = linear(base, x);
    for (std::size_t t = 0; t < a_.size(); ++t) {
      // The gate goes onto the smaller factor.
      auto a = tape.parameter(a_[t]), b = tape.parameter(b_[t]);
      const auto g_t = slice(g, 0, static_cast<Index>(t), 1);
      auto& smaller = a.value().size() <= b.value().size() ? a : b;
      smaller = mul(smaller, g_t);
      y = add(y, detail::kronecker_product(x, a, b));
    }
    return y;
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    for (std::size_t t = 0; t < a_.size(); ++t) {
      list.push_back(detail::named(concat("moka_A.", t), a_[t]));
      list.push_back(detail::named(concat("moka_B.", t), b_[t]));
    }
    list.push_back(detail::named("moka_gate", z_));
    return list;
  }

 private:
  T scaling_;
  std::string gate_;
  std::vector<BasicParameter<T>> a_, b_;
  BasicParameter<T> z_;
};

using MoKA = BasicMoKA<float>;

}  // namespace graft::inline v0_1
