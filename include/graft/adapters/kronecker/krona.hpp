#pragma once

#include <string>
#include <vector>

#include "graft/adapters/kronecker/factors.hpp"
#include "graft/adapters/kronecker/lokr.hpp"
#include "graft/adapters/sublayer.hpp"

namespace graft::inline v0_1 {

/// Configuration of KronA.
struct KronAConfig {
  std::vector<Index> a_shape = {};  ///< [a1, a2]; empty: the larger halves of near-square splits
  double scaling = 1;
  std::string init_zero = "B";  ///< the factor that begins as zero, "A" or "B"
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "KRONA";

  template <class Visitor>
  void fields(Visitor& v) {
    nullable_field(v, "a_shape", a_shape);
    v("scaling", scaling);
    v("init_zero", init_zero);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for a shape that is none, or another factor.
  void validate() const {
    if (!a_shape.empty() && (a_shape.size() != 2 || a_shape[0] < 1 || a_shape[1] < 1))
      throw ValueError("KronA: a_shape expected two numbers of at least 1");
    if (init_zero != "A" && init_zero != "B")
      throw ValueError(concat("KronA: init_zero '", init_zero, "', expected \"A\" or \"B\""));
  }
};

/// KronA: y = base(x) + s · x (A ⊗ B)ᵀ, per row vec(A X Bᵀ) with x seen as X [a2, in/a2].
///
/// A: [a1, a2], B: [out/a1, in/a2]; trained: a1 a2 + out in / (a1 a2). The identity at the start;
/// merges. No out × in matrix appears. Source: Edalati et al. 2022 (arXiv:2212.10650), section 3.
/// Tensors: krona_A, krona_B.
template <std::floating_point T>
class BasicKronA {
 public:
  using Scalar = T;
  using Config = KronAConfig;

  static MethodInfo info() {
    return {.peft_type = "KRONA",
            .name = "KronA",
            .family = "kronecker",
            .paper = "arXiv:2212.10650",
            .sites = "linear",
            .parameters = "a + out in / a, a = root(out in)",
            .in_peft = false};
  }

  BasicKronA(const KronAConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : scaling_(static_cast<T>(config.scaling)) {
    config.validate();
    const Index out = site.out_features, in = site.in_features;
    const Index a1 = config.a_shape.empty() ? kronecker_sizes(out, -1).second : config.a_shape[0],
                a2 = config.a_shape.empty() ? kronecker_sizes(in, -1).second : config.a_shape[1];
    detail::require_division("KronA", "a_shape", a1, out, site.path);
    detail::require_division("KronA", "a_shape", a2, in, site.path);
    const auto draw = [&](const char* name, const Shape& shape) {
      return config.init_zero == name ? detail::constant<T>(shape, 0)
                                      : detail::drawn_factor<T>(context, shape, shape[1]);
    };
    a_ = draw("A", {a1, a2});
    b_ = draw("B", {out / a1, in / a2});
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicKronA(const KronAConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicKronA(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto y = detail::kronecker_product(x, tape.parameter(a_), tape.parameter(b_));
    return add(linear(base, x), scale(y, scaling_));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    return {detail::named("krona_A", a_), detail::named("krona_B", b_)};
  }

 private:
  T scaling_;
  BasicParameter<T> a_, b_;
};

using KronA = BasicKronA<float>;

}  // namespace graft::inline v0_1
