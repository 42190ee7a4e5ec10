#pragma once

#include <algorithm>
#include <concepts>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"
#include "graft/tensor/decompositions.hpp"

namespace graft::inline v0_1 {

/// Configuration of LoRA-XS.
struct LoRAXSConfig {
  Index rank = 32;
  double alpha = 64;
  double dropout = 0;
  bool exact_identity = false;  ///< R = 0 at the start in place of N(0, 1e-10)
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "LORA_XS";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("lora_alpha", alpha);
    v("lora_dropout", dropout);
    optional_field(v, "exact_identity", exact_identity, false);
    v("target_modules", target_modules);
    select.fields(v);
  }
};

/// Configuration of SLoRA.
struct SLoRAConfig {
  Index rank = 128;
  double alpha = 128;
  double dropout = 0;
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "SLORA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("lora_alpha", alpha);
    v("lora_dropout", dropout);
    v("target_modules", target_modules);
    select.fields(v);
  }
};

/// Configuration of NLoRA. The released code is core raw, residual none.
struct NLoRAConfig {
  Index rank = 128;
  double alpha = 128;
  double dropout = 0;
  std::string core = "pinv";          ///< pinv: (W[:r, :r])⁺, or raw: W[:r, :r]
  std::string residual = "subtract";  ///< subtract the first update from the layer, or none
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "NLORA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("lora_alpha", alpha);
    v("lora_dropout", dropout);
    v("core", core);
    v("residual", residual);
    v("target_modules", target_modules);
    select.fields(v);
  }
};

/// Configuration of IntermediateTune: as NLoRA.
struct IntTuneConfig : NLoRAConfig {
  static constexpr const char* kPeftType = "INT_TUNE";
};

namespace detail {

/// Pseudo-inverse of a square matrix, singular values below n ε σ₁ seen as zero. A template, so
/// that a program that has no use for it does not compile Eigen's decompositions.
template <std::same_as<double> T>
BasicTensor<T> pseudo_inverse(const BasicTensor<T>& a) {
  const Index n = a.rows();
  const auto d = svd(a);
  auto result = BasicTensor<double>::zeros({n, n});
  const double limit = static_cast<double>(n) * 2.3e-16 * (n > 0 ? d.s[0] : 0);
  for (Index k = 0; k < n; ++k) {
    if (!(d.s[k] > limit)) continue;
    for (Index i = 0; i < n; ++i)
      for (Index j = 0; j < n; ++j) result(i, j) += d.v(i, k) * d.u(j, k) / d.s[k];
  }
  return result;
}

template <std::floating_point T>
struct ThreeFactors {
  BasicTensor<T> a, n, b;
};

/// A = W[:r, :], B = W[:, :r] and the core of the Nyström approximation.
template <std::floating_point T>
ThreeFactors<T> nystroem_factors(const BasicTensor<T>& w, Index r, bool pinv) {
  const Index out = w.rows(), in = w.cols();
  ThreeFactors<T> f{BasicTensor<T>::empty({r, in}), {}, BasicTensor<T>::empty({out, r})};
  std::copy_n(w.data(), r * in, f.a.data());
  auto block = BasicTensor<double>::empty({r, r});
  for (Index o = 0; o < out; ++o)
    for (Index k = 0; k < r; ++k) {
      f.b(o, k) = w(o, k);
      if (o < r) block(o, k) = static_cast<double>(w(o, k));
    }
  f.n = (pinv ? pseudo_inverse(block) : block).template cast<T>();
  return f;
}

}  // namespace detail

/// y = base(x) + s · drop(x) Aᵀ Nᵀ Bᵀ, s = alpha / r; less s · x A₀ᵀ N₀ᵀ B₀ᵀ where the layer gives
/// up what the factors hold at the start.
///
/// A: [r, in], N: [r, r], B: [out, r]; some of them frozen. N A is one small product; the rest runs
/// inside the product of the base. Merges.
template <std::floating_point T>
class BasicThreeFactorLoRA {
 public:
  using Scalar = T;
  struct Trained {
    bool a, n, b;
  };

  BasicThreeFactorLoRA(detail::ThreeFactors<T> factors, Trained trained, double scaling,
                       double dropout, std::string core_name, bool subtract)
      : a_(factors.a, trained.a),
        n_(factors.n.clone(), trained.n),
        b_(factors.b, trained.b),
        scaling_(static_cast<T>(scaling)),
        dropout_(dropout),
        core_name_(std::move(core_name)) {
    if (!subtract) return;
    first_a_ = detail::product(factors.n, factors.a);
    first_b_ = factors.b.clone();
    if (trained.a) a_ = BasicParameter<T>(factors.a.clone());
    if (trained.b) b_ = BasicParameter<T>(factors.b.clone());
    for (T& v : first_b_) v = -v;
  }

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto a = matmul(tape.parameter(n_), tape.parameter(a_)), b = tape.parameter(b_);
    const auto dropped = graft::dropout(x, dropout_);
    if (!first_a_) return linear_low_rank(base, x, dropped, a, b, scaling_);
    const auto a0 = tape.constant(first_a_), b0 = tape.constant(first_b_);
    if (dropped.value().data() == x.value().data())
      return linear_low_rank(base, x, x, concat_along(0, std::vector<BasicVar<T>>{a, a0}),
                             concat_along(1, std::vector<BasicVar<T>>{b, b0}), scaling_);
    const auto rest = scale(
        matmul(matmul(x, a0, Transpose::no, Transpose::yes), b0, Transpose::no, Transpose::yes),
        scaling_);
    return add(linear_low_rank(base, x, dropped, a, b, scaling_), rest);
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(3);
    list[0].name = "lora_A.weight";
    list[0].parameter = a_;
    list[1].name = core_name_;
    list[1].parameter = n_;
    list[2].name = "lora_B.weight";
    list[2].parameter = b_;
    return list;
  }

 private:
  BasicParameter<T> a_, n_, b_;
  T scaling_;
  double dropout_;
  std::string core_name_;
  BasicTensor<T> first_a_, first_b_;
};

/// LoRA-XS: only an r × r matrix is trained between the frozen singular factors of W.
///
/// A = diag(σ_r) V_rᵀ, B = U_r, frozen and saved; R: [r, r] ~ N(0, 1e-10); trained: r². Nearly the
/// identity at the start. Source: Bałazy et al. 2024 (arXiv:2405.17604), eq. 2. The singular values
/// are exact. Tensors: lora_A.weight, lora_latent.weight, lora_B.weight.
template <std::floating_point T>
struct LoRAXSMethod {
  using Scalar = T;
  using Config = LoRAXSConfig;
  static MethodInfo info() {
    return {.peft_type = "LORA_XS",
            .name = "LoRA-XS",
            .family = "low_rank",
            .paper = "arXiv:2405.17604",
            .sites = "linear",
            .parameters = "r^2",
            .in_peft = false,
            .identity_at_init = false};
  }
  /// @throws ValueError for a rank above min(out, in).
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    const Index r = config.rank, in = site.in_features, out = site.out_features;
    if (r < 1 || r > std::min(in, out))
      throw ValueError(
          concat("LoRA-XS: r ", r, " of ", site.path, ", expected 1 to ", std::min(in, out)));
    detail::ThreeFactors<T> f{BasicTensor<T>::zeros({r, in}), BasicTensor<T>::zeros({r, r}),
                              BasicTensor<T>::zeros({out, r})};
    if (!context.loading) {
      const auto d = svd(site.weight());
      for (Index k = 0; k < r; ++k) {
        for (Index i = 0; i < in; ++i) f.a(k, i) = d.s[k] * d.v(i, k);
        for (Index o = 0; o < out; ++o) f.b(o, k) = d.u(o, k);
      }
      if (!config.exact_identity) f.n = detail::normal_tensor<T>(context.generator, {r, r}, 1e-5);
    }
    return linear_part(BasicThreeFactorLoRA<T>(std::move(f), {false, true, false},
                                               config.alpha / static_cast<double>(r),
                                               config.dropout, "lora_latent.weight", false));
  }
};

/// SLoRA: LoRA with a trained r × r matrix between the factors.
///
/// A ~ U(±1/√in), N ~ U(±1/√r), B = 0; trained: r (in + out) + r². The identity at the start.
/// Source: Guo et al. 2025 (arXiv:2502.14482), section 3.1. Tensors: lora_A.weight, lora_N.weight,
/// lora_B.weight.
template <std::floating_point T>
struct SLoRAMethod {
  using Scalar = T;
  using Config = SLoRAConfig;
  static MethodInfo info() {
    return {.peft_type = "SLORA",
            .name = "SLoRA",
            .family = "low_rank",
            .paper = "arXiv:2502.14482",
            .sites = "linear",
            .parameters = "r (in + out) + r^2",
            .in_peft = false};
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    const Index r = config.rank, in = site.in_features, out = site.out_features;
    if (r < 1) throw ValueError(concat("SLoRA: r ", r, ", expected at least 1"));
    detail::ThreeFactors<T> f{BasicTensor<T>::zeros({r, in}), BasicTensor<T>::zeros({r, r}),
                              BasicTensor<T>::zeros({out, r})};
    if (!context.loading) {
      f.a = detail::kaiming_uniform_tensor<T>(context.generator, {r, in}, in);
      f.n = detail::kaiming_uniform_tensor<T>(context.generator, {r, r}, r);
    }
    return linear_part(BasicThreeFactorLoRA<T>(std::move(f), {true, true, true},
                                               config.alpha / static_cast<double>(r),
                                               config.dropout, "lora_N.weight", false));
  }
};

/// NLoRA, or IntermediateTune if only the core is trained: the three factors of SLoRA from the
/// Nyström approximation of W.
///
/// A = W[:r, :], B = W[:, :r], N = (W[:r, :r])⁺, or W[:r, :r]; trained: r (in + out) + r², or r².
/// With residual subtract the layer loses s B₀ N₀ A₀ and starts as the identity; the first factors
/// are taken from the frozen weight again when a file is loaded, the weight itself stays. Source:
/// Guo et al. 2025 (arXiv:2502.14482), sections 3.2 and 3.3. Tensors: lora_A.weight, lora_N.weight,
/// lora_B.weight.
template <std::floating_point T, class C>
struct NystroemMethod {
  using Scalar = T;
  using Config = C;
  static constexpr bool kCoreOnly = std::is_same_v<C, IntTuneConfig>;
  static Config example() {
    Config config;
    config.rank = 4;
    config.alpha = 4;
    return config;
  }
  static MethodInfo info() {
    return {.peft_type = C::kPeftType,
            .name = kCoreOnly ? "IntermediateTune" : "NLoRA",
            .family = "low_rank",
            .paper = "arXiv:2502.14482",
            .sites = "linear",
            .parameters = kCoreOnly ? "r^2" : "r (in + out) + r^2",
            .in_peft = false};
  }
  /// @throws ValueError for a rank above min(out, in) or an unknown word.
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>&) {
    const Index r = config.rank, limit = std::min(site.in_features, site.out_features);
    if (r < 1 || r > limit)
      throw ValueError(concat("NLoRA: r ", r, " of ", site.path, ", expected 1 to ", limit));
    if (config.core != "pinv" && config.core != "raw")
      throw ValueError(concat("NLoRA: core '", config.core, "', expected pinv or raw"));
    if (config.residual != "subtract" && config.residual != "none")
      throw ValueError(
          concat("NLoRA: residual '", config.residual, "', expected subtract or none"));
    return linear_part(BasicThreeFactorLoRA<T>(
        detail::nystroem_factors(site.weight(), r, config.core == "pinv"),
        {!kCoreOnly, true, !kCoreOnly}, config.alpha / static_cast<double>(r), config.dropout,
        "lora_N.weight", config.residual == "subtract"));
  }
};

}  // namespace graft::inline v0_1
