#pragma once

#include <string>
#include <vector>

#include "graft/adapters/kronecker/factors.hpp"
#include "graft/adapters/sublayer.hpp"

namespace graft::inline v0_1 {

/// Configuration of PHM layers (parametrised hypercomplex multiplication). LPHM has the same
/// fields, `phm_rank` and other defaults.
struct PHMConfig {
  Index phm_dim = 4;
  std::string phm_rule = "full";      ///< "full" or "factorised": A_i = left_i right_i
  bool shared_phm_rule = false;       ///< one A for all sites
  std::string mode = "delta";         ///< "delta" adds to the layer, "replace" takes its place
  double scaling = 1;                 ///< of a delta
  Index phm_rank = 0;                 ///< rank of the content B_i; 0: full
  bool learn_phm = true;              ///< false: the algebra A stays as it was drawn
  std::string phm_c_init = "normal";  ///< of A, or uniform in ± the deviation of the normal one
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "PHM";

  template <class Visitor>
  void fields(Visitor& v) {
    v("phm_dim", phm_dim);
    v("phm_rule", phm_rule);
    v("shared_phm_rule", shared_phm_rule);
    v("mode", mode);
    v("scaling", scaling);
    optional_field(v, "learn_phm", learn_phm, true);
    optional_field(v, "phm_c_init", phm_c_init, std::string("normal"));
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for sizes that cannot be, an unknown rule, init or mode.
  void validate() const {
    if (phm_dim < 1) throw ValueError(concat("PHM: phm_dim ", phm_dim, ", expected at least 1"));
    if (phm_rank < 0) throw ValueError(concat("PHM: phm_rank ", phm_rank, ", expected at least 1"));
    if (phm_rule != "full" && phm_rule != "factorised")
      throw ValueError(
          concat("PHM: phm_rule '", phm_rule, "', expected \"full\" or \"factorised\""));
    if (phm_c_init != "normal" && phm_c_init != "uniform")
      throw ValueError(
          concat("PHM: phm_c_init '", phm_c_init, "', expected \"normal\" or \"uniform\""));
    if (mode != "delta" && mode != "replace")
      throw ValueError(concat("PHM: mode '", mode, "', expected \"delta\" or \"replace\""));
  }
};

/// Configuration of low-rank PHM layers.
struct LPHMConfig : PHMConfig {
  LPHMConfig() {
    shared_phm_rule = true;
    phm_rank = 1;
  }
  static constexpr const char* kPeftType = "LPHM";
  template <class Visitor>
  void fields(Visitor& v) {
    PHMConfig::fields(v);
    v("phm_rank", phm_rank);
  }
  void validate() const {
    if (phm_rank < 1)
      throw ValueError(concat("LPHM: phm_rank ", phm_rank, ", expected at least 1"));
    PHMConfig::validate();
  }
};

namespace detail {

/// The algebra matrices A [n, n, n] of PHM layers, of one layer or of all.
template <std::floating_point T>
class PHMRule {
 public:
  PHMRule(Index n, bool factorised, bool shared, double std, InitContext<T>& context,
          bool learns = true, bool uniform = false)
      : shared_(shared) {
    const auto make = [&](const char* name, const Shape& shape, double s) {
      const auto draw = [&] {
        if (!uniform) return normal_values<T>(context, shape, s);
        auto t = BasicTensor<T>::zeros(shape);
        if (!context.loading) context.generator.uniform(t.data(), t.size(), -s, s);
        return t;
      };
      auto p = shared ? context.shared.get(name, draw) : BasicParameter<T>(draw());
      p.set_trainable(learns);
      return p;
    };
    if (factorised) {
      left_ = make("phm_A_left", {n, n, 1}, 0.01);
      right_ = make("phm_A_right", {n, 1, n}, 0.01);
    } else {
      a_ = make("phm_A", {n, n, n}, std);
    }
  }
  BasicVar<T> operator()(BasicTape<T>& tape) const {
    return a_ ? tape.parameter(a_) : matmul(tape.parameter(left_), tape.parameter(right_));
  }
  void list(std::vector<AdapterTensor<T>>& tensors) const {
    const auto put = [&](const char* name, const BasicParameter<T>& p) {
      if (p) tensors.push_back(shared_ ? shared_tensor<T>(name, p) : named<T>(name, p));
    };
    put("phm_A", a_);
    put("phm_A_left", left_);
    put("phm_A_right", right_);
  }

 private:
  bool shared_;
  BasicParameter<T> a_, left_, right_;
};

}  // namespace detail

/// PHM and LPHM: H = Σ_i A_i ⊗ B_i as a map x H. Delta: y = base(x) + s x H; replace: y = x H +
/// bias, the frozen layer unused. LPHM: B_i = S_i T_i.
///
/// A: [n, n, n] (or left [n, n, 1] and right [n, 1, n]), B: [n, in/n, out/n], S: [n, in/n, k], T:
/// [n, k, out/n]; trained: in out / n (k (in + out) with LPHM) + n³ (none of it without
/// `learn_phm`), and out for the bias. Not the identity at the start (A ~ N(0, 0.01²), LPHM N(0,
/// 1e-4²), B Glorot-uniform with gain √2). Merges: W + s Hᵀ, or Hᵀ and the bias. H is never formed.
/// Source: Zhang et al. 2021 (arXiv:2102.08597), equation 2; Karimi Mahabadi et al. 2021
/// (arXiv:2106.04647), section 3.2. Tensors: phm_A, phm_A_left, phm_A_right (below "shared." if
/// shared), phm_B or lphm_S, lphm_T, phm_bias.
template <std::floating_point T, class ConfigType>
class BasicPHM {
 public:
  using Scalar = T;
  using Config = ConfigType;
  static constexpr bool kLowRank = std::is_same_v<Config, LPHMConfig>;

  static MethodInfo info() {
    return {.peft_type = Config::kPeftType,
            .name = Config::kPeftType,
            .family = "kronecker",
            .paper = kLowRank ? "arXiv:2106.04647" : "arXiv:2102.08597",
            .sites = "linear",
            .parameters = kLowRank ? "phm_rank (in + out) + n^3, n = phm_dim"
                                   : "in out / n + n^3, n = phm_dim",
            .in_peft = false,
            .identity_at_init = false};
  }

  BasicPHM(const Config& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : scaling_(static_cast<T>(config.scaling)),
        rule_((config.validate(), config.phm_dim), config.phm_rule == "factorised",
              config.shared_phm_rule, kLowRank ? 1e-4 : 1e-2, context, config.learn_phm,
              config.phm_c_init == "uniform") {
    const Index n = config.phm_dim, in = site.in_features, out = site.out_features;
    detail::require_division(Config::kPeftType, "phm_dim", n, in, site.path);
    detail::require_division(Config::kPeftType, "phm_dim", n, out, site.path);
    if constexpr (kLowRank) {
      s_ = detail::glorot_stack<T>(context, {n, in / n, config.phm_rank});
      t_ = detail::glorot_stack<T>(context, {n, config.phm_rank, out / n});
    } else {
      b_ = detail::glorot_stack<T>(context, {n, in / n, out / n});
    }
    if (config.mode == "replace") bias_ = detail::constant<T>({out}, 0);
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicPHM(const Config& config, const L& base, std::uint64_t seed = 0)
      : BasicPHM(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto a = rule_(tape);
    const auto y = b_ ? detail::hypercomplex_product(x, a, tape.parameter(b_))
                      : detail::hypercomplex_product(x, a, tape.parameter(s_), tape.parameter(t_));
    if (bias_) return add(y, tape.parameter(bias_));
    return add(linear(base, x), scale(y, scaling_));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    rule_.list(list);
    if (b_) list.push_back(detail::named("phm_B", b_));
    if (s_) list.push_back(detail::named("lphm_S", s_));
    if (t_) list.push_back(detail::named("lphm_T", t_));
    if (bias_) list.push_back(detail::named("phm_bias", bias_));
    return list;
  }

 private:
  T scaling_;
  detail::PHMRule<T> rule_;
  BasicParameter<T> b_, s_, t_, bias_;
};

using PHM = BasicPHM<float, PHMConfig>;
using LPHM = BasicPHM<float, LPHMConfig>;

}  // namespace graft::inline v0_1
