#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/kronecker/factors.hpp"
#include "graft/adapters/sublayer.hpp"
#include "graft/autograd/ops/block_circulant.hpp"

namespace graft::inline v0_1 {

/// Configuration of SURM.
struct SURMConfig {
  std::string variant = "circulant";  ///< circulant, toeplitz, ldr or kronecker
  double scaling = 1;                 ///< but for kronecker
  Index terms = 1;                    ///< of ldr, "rank" in files
  Index rank = 8;                     ///< shape of the Kronecker factors
  std::optional<double> alpha = {};   ///< of kronecker, whose scaling is alpha / r; null: r
  double dropout = 0;                 ///< on the input of the branch, while training
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "SURM";

  template <class Visitor>
  void fields(Visitor& v) {
    v("variant", variant);
    v("scaling", scaling);
    v("rank", terms);
    v("r", rank);
    v("alpha", alpha);
    v("dropout", dropout);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for an unknown variant and numbers that cannot be.
  void validate() const {
    if (variant != "circulant" && variant != "toeplitz" && variant != "ldr" &&
        variant != "kronecker")
      throw ValueError(
          concat("SURM: variant '", variant, "', expected circulant, toeplitz, ldr or kronecker"));
    if (terms < 1 || rank < 1)
      throw ValueError(concat("SURM: rank ", terms, " and r ", rank, ", expected at least 1"));
    if (!(dropout >= 0 && dropout < 1))
      throw ValueError(concat("SURM: dropout ", dropout, ", expected in [0, 1)"));
  }
};

namespace detail {

/// y_i = Σ_j v[(i − j) mod n] x_j, summed over blocks: x: [..., N n], v: [M, N, n], result [..., M
/// n].
template <std::floating_point T>
BasicVar<T> circulant_product(const BasicVar<T>& x, const BasicVar<T>& v) {
  // block_circulant counts the other way round.
  const Index n = v.dim(2), blocks = v.size() / n;
  std::vector<Index> reversed;
  for (Index b = 0; b < blocks; ++b)
    for (Index i = 0; i < n; ++i) reversed.push_back(b * n + (n - i) % n);
  return block_circulant(x, take(v, std::move(reversed), v.shape()));
}

/// Rows of x with zeros behind them, up to n numbers.
template <std::floating_point T>
BasicVar<T> padded(const BasicVar<T>& x, Index n) {
  if (x.cols() == n) return x;
  const auto zeros = x.tape().constant(BasicTensor<T>::zeros(x.shape().with_last(n - x.cols())));
  return concat_along(x.shape().rank() - 1, std::vector<BasicVar<T>>{x, zeros});
}

/// x T(v) with the symmetric Toeplitz matrix T[i, j] = v[|i − j|], as part of a circulant of length
/// 2 n. x: [..., n], v: [n].
template <std::floating_point T>
BasicVar<T> toeplitz_product(const BasicVar<T>& x, const BasicVar<T>& v) {
  const Index n = x.cols();
  std::vector<Index> lags;
  for (Index i = 0; i < 2 * n; ++i) lags.push_back(std::min(i, 2 * n - i) % n);
  // Lag n meets only zeros of the padded x; what stands there does not matter.
  const auto around = take(v, std::move(lags), {1, 1, 2 * n});
  return slice(circulant_product(padded(x, 2 * n), around), -1, 0, n);
}

/// S(h_i) x for the skew-circulant matrices of every row of h [ρ, n]: S[k, j] = h[k − j], −h[n + k
/// − j] above the diagonal. The linear convolution of length 2 n less its second half. Result [...,
/// ρ n].
template <std::floating_point T>
BasicVar<T> skew_circulant_products(const BasicVar<T>& x, const BasicVar<T>& h) {
  const Index n = x.cols(), terms = h.rows(), rows = x.rows();
  const auto around = reshape(padded(h, 2 * n), {terms, 1, 2 * n});
  const auto both = reshape(circulant_product(padded(x, 2 * n), around), {rows * terms, 2, n});
  return reshape(sub(slice(both, 1, 0, 1), slice(both, 1, 1, 1)), x.shape().with_last(terms * n));
}

}  // namespace detail

/// SURM: y = base(x) + s · x ΔWᵀ with a structured ΔW of unrestricted rank.
///
/// circulant: C(b ⊙ a), C(v)[i, j] = v[(i − j) mod n];  toeplitz: T(b) T(a), T(v)[i, j] = v[|i −
/// j|];  ldr: Σ_i C(g_i) S(h_i), S skew-circulant, `rank` terms;  kronecker: (alpha / r) B ⊗ A. The
/// first three have square blocks of n = min(in, out), one for each of the k = max(in, out) / n
/// slices of the longer side. They act on x by FFTs, O(k n log n) a row; ΔW is not formed.
///
/// a, b: [k, n], g, h: [k, ρ, n], A: [r, in / r], B: [out / r, r]; trained: 2 max(in, out), with
/// ldr ρ times as many; kronecker in + out. The identity at the start (b, g or B zero); merges.
/// Source: Sehanobish et al. 2024 (arXiv:2406.17740), section 4. Deviations: rectangular layers as
/// above (the released code is square); skew-circulant products are exact for every n. Tensors:
/// surm_a, surm_b; surm_g, surm_h; surm_A, surm_B.
template <std::floating_point T>
class BasicSURM {
 public:
  using Scalar = T;
  using Config = SURMConfig;

  static MethodInfo info() {
    return {.peft_type = "SURM",
            .name = "SURM",
            .family = "kronecker",
            .paper = "arXiv:2406.17740",
            .sites = "linear",
            .parameters = "2 max(in, out)",
            .in_peft = false};
  }

  /// @throws ValueError if the shorter side does not divide the longer one, or r does not divide
  /// both.
  BasicSURM(const SURMConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : variant_((config.validate(), config.variant)),
        scaling_(static_cast<T>(config.scaling)),
        dropout_(config.dropout) {
    const Index in = site.in_features, out = site.out_features;
    if (variant_ == "kronecker") {
      const Index r = config.rank;
      detail::require_division("SURM", "r", r, in, site.path);
      detail::require_division("SURM", "r", r, out, site.path);
      scaling_ =
          static_cast<T>(config.alpha.value_or(static_cast<double>(r)) / static_cast<double>(r));
      first_ = detail::drawn_factor<T>(context, {r, in / r}, in / r);
      second_ = detail::constant<T>({out / r, r}, 0);
      return;
    }
    const Index n = std::min(in, out), k = std::max(in, out) / n;
    detail::require_division("SURM", "the shorter side", n, std::max(in, out), site.path);
    tall_ = out > in;
    const Shape shape = variant_ == "ldr" ? Shape{k, config.terms, n} : Shape{k, n};
    first_ = BasicParameter<T>(
        detail::normal_values<T>(context, shape, variant_ == "circulant" ? 1 : 0.02));
    second_ = detail::constant<T>(shape, 0);
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicSURM(const SURMConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicSURM(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    return add(linear(base, x), scale(change(graft::dropout(x, dropout_)), scaling_));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    const bool ldr = variant_ == "ldr", kronecker = variant_ == "kronecker";
    return {detail::named(ldr         ? "surm_h"
                          : kronecker ? "surm_A"
                                      : "surm_a",
                          first_),
            detail::named(ldr         ? "surm_g"
                          : kronecker ? "surm_B"
                                      : "surm_b",
                          second_)};
  }

 private:
  BasicVar<T> change(const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto first = tape.parameter(first_), second = tape.parameter(second_);
    if (variant_ == "kronecker") return detail::kronecker_product(x, second, first);
    const Index k = first.dim(0), n = first.cols();
    if (variant_ == "circulant")
      return detail::circulant_product(
          x, reshape(mul(second, first), tall_ ? Shape{k, 1, n} : Shape{1, k, n}));
    std::vector<BasicVar<T>> parts;
    for (Index t = 0; t < k; ++t) {
      const auto own = k == 1 || tall_ ? x : slice(x, -1, t * n, n);
      const auto a = slice(first, 0, t, 1), b = slice(second, 0, t, 1);
      if (variant_ == "toeplitz") {
        parts.push_back(detail::toeplitz_product(detail::toeplitz_product(own, a), b));
      } else {
        const Index terms = a.dim(1);
        const auto h = detail::skew_circulant_products(own, reshape(a, {terms, n}));
        parts.push_back(detail::circulant_product(h, b));
      }
    }
    if (tall_ && k > 1) return concat_along(x.shape().rank() - 1, parts);
    auto y = parts[0];
    for (std::size_t t = 1; t < parts.size(); ++t) y = add(y, parts[t]);
    return y;
  }

  std::string variant_;
  T scaling_;
  double dropout_;
  bool tall_ = false;                 // more outputs than inputs
  BasicParameter<T> first_, second_;  // the one that is drawn, the one that begins as zero
};

using SURM = BasicSURM<float>;

}  // namespace graft::inline v0_1
