#pragma once

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "graft/adapters/kronecker/factors.hpp"
#include "graft/adapters/kronecker/lokr.hpp"
#include "graft/adapters/sublayer.hpp"
#include "graft/tensor/decompositions.hpp"

namespace graft::inline v0_1 {

/// Configuration of SoKA.
struct SoKAConfig {
  std::optional<Index> rank = {};   ///< number of terms; null: by `energy`, the elbow and `r_max`
  std::vector<Index> a_shape = {};  ///< [m, n]; empty: the larger halves of near-square splits
  double scaling = 1;
  std::string train = "both";  ///< both factors, or the singular values alone ("sigma")
  bool residual = true;        ///< the weight gives up what the adapter starts with
  double energy = 0.9;
  Index r_max = 64;
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "SOKA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    nullable_field(v, "a_shape", a_shape);
    v("scaling", scaling);
    v("train", train);
    v("residual", residual);
    v("energy", energy);
    v("r_max", r_max);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for numbers that cannot be.
  void validate() const {
    if (rank && *rank < 1) throw ValueError(concat("SoKA: r ", *rank, ", expected at least 1"));
    if (!a_shape.empty() && (a_shape.size() != 2 || a_shape[0] < 1 || a_shape[1] < 1))
      throw ValueError("SoKA: a_shape expected two numbers of at least 1");
    if (!(scaling > 0)) throw ValueError("SoKA: scaling expected above 0");
    if (train != "both" && train != "sigma")
      throw ValueError(concat("SoKA: train '", train, "', expected \"both\" or \"sigma\""));
    if (!(energy > 0 && energy <= 1) || r_max < 1)
      throw ValueError("SoKA: energy expected in (0, 1], r_max at least 1");
  }
};

/// Numbers of terms that the spectrum asks for.
struct SoKARank {
  Index energy = 1;  ///< the smallest with this share of Σ σ²
  Index elbow = 1;   ///< where the curve lies deepest below the line between its ends
  Index chosen = 1;  ///< the smallest of both and the cap, at least 1
};

/// Rank by energy and elbow. `sigma` falls. A constant spectrum or one value has its elbow at the
/// end; the first of several deepest points counts.
inline SoKARank soka_rank(const std::vector<double>& sigma, double energy, Index r_max) {
  SoKARank rank;
  const auto count = static_cast<Index>(sigma.size());
  double total = 0, part = 0;
  for (double s : sigma) total += s * s;
  rank.energy = count;
  for (Index k = 0; k < count; ++k) {
    part += sigma[static_cast<std::size_t>(k)] * sigma[static_cast<std::size_t>(k)];
    if (part >= energy * total) {
      rank.energy = k + 1;
      break;
    }
  }
  rank.elbow = count;
  if (count > 1 && sigma.front() > sigma.back()) {
    double deepest = -1;
    for (Index k = 0; k < count; ++k) {
      const double x = static_cast<double>(k) / static_cast<double>(count - 1);
      const double y =
          (sigma[static_cast<std::size_t>(k)] - sigma.back()) / (sigma.front() - sigma.back());
      if (1 - x - y > deepest + 1e-12) {
        deepest = 1 - x - y;
        rank.elbow = k + 1;
      }
    }
  }
  rank.chosen = std::max<Index>(1, std::min({rank.energy, rank.elbow, r_max}));
  return rank;
}

/// W = Σ_k σ_k U_k ⊗ V_k with U_k: [m, n], V_k: [p, q]; the first terms are the best approximation.
/// u: [mn, K] and v: [pq, K] hold the factors as columns.
template <std::floating_point T>
SingularValues<double> kronecker_svd(const BasicTensor<T>& w, Index m, Index n) {
  const Index p = w.rows() / m, q = w.cols() / n;
  auto r = BasicTensor<double>::empty({m * n, p * q});
  for (Index i = 0; i < m; ++i)
    for (Index k = 0; k < p; ++k)
      for (Index j = 0; j < n; ++j)
        for (Index l = 0; l < q; ++l)
          r(i * n + j, k * q + l) = static_cast<double>(w(i * p + k, j * q + l));
  return svd(r);
}

/// SoKA: y = x W_resᵀ + b + s Σ_k x (A_k ⊗ B_k)ᵀ, the terms begin as the principal part of the
/// Kronecker SVD of W: A_k = √(σ_k / s) U_k, B_k = √(σ_k / s) V_k, W_res = W − s Σ A_k ⊗ B_k.
/// "sigma" trains σ' alone: W_res + Σ σ'_k U_k ⊗ V_k. Without `residual` W stays whole.
///
/// A: [r, m, n], B: [r, out/m, in/n], σ': [r]; trained: r (m n + out in / (m n)), or r. The
/// identity at the start with `residual`; merges. The frozen weight is not touched: the first terms
/// are subtracted as factors, computed again from W when a checkpoint is loaded. Source: "Singular
/// Value Decomposition on Kronecker Adaptation for Large Language Model"; energy 0.9, the cap and
/// the shapes are this library's choice. Tensors: soka_A, soka_B; or soka_sigma.
template <std::floating_point T>
class BasicSoKA {
 public:
  using Scalar = T;
  using Config = SoKAConfig;

  static MethodInfo info() {
    return {.peft_type = "SOKA",
            .name = "SoKA",
            .family = "kronecker",
            .paper = "Singular Value Decomposition on Kronecker Adaptation",
            .sites = "linear",
            .parameters = "; r (m n + out in / (m n)), r by energy",
            .in_peft = false};
  }

  BasicSoKA(const SoKAConfig& config, const LinearSiteInfo<T>& site, InitContext<T>&)
      : scaling_(static_cast<T>(config.scaling)), residual_(config.residual) {
    config.validate();
    const Index out = site.out_features, in = site.in_features;
    const Index m = config.a_shape.empty() ? kronecker_sizes(out, -1).second : config.a_shape[0],
                n = config.a_shape.empty() ? kronecker_sizes(in, -1).second : config.a_shape[1];
    detail::require_division("SoKA", "a_shape", m, out, site.path);
    detail::require_division("SoKA", "a_shape", n, in, site.path);
    const auto terms = kronecker_svd(site.weight(), m, n);
    const Index all = terms.s.size();
    const Index r =
        config.rank
            ? std::min(*config.rank, all)
            : soka_rank({terms.s.begin(), terms.s.end()}, config.energy, config.r_max).chosen;
    const bool sigma = config.train == "sigma";
    const auto factor = [&](const BasicTensor<double>& columns, const Shape& shape) {
      auto f = BasicTensor<T>::empty(shape);
      const Index size = shape[1] * shape[2];
      for (Index k = 0; k < r; ++k) {
        const double root = sigma ? 1 : std::sqrt(terms.s[k] / config.scaling);
        for (Index i = 0; i < size; ++i) f[k * size + i] = static_cast<T>(root * columns(i, k));
      }
      return f;
    };
    first_a_ = factor(terms.u, {r, m, n});
    first_b_ = factor(terms.v, {r, out / m, in / n});
    if (sigma) {
      first_sigma_ = BasicTensor<T>::empty({r});
      for (Index k = 0; k < r; ++k) first_sigma_[k] = static_cast<T>(terms.s[k]);
      sigma_ = BasicParameter<T>(first_sigma_.clone());
    } else {
      a_ = BasicParameter<T>(first_a_.clone());
      b_ = BasicParameter<T>(first_b_.clone());
    }
  }
  /// For a layer of one's own.
  template <Linear L>
  BasicSoKA(const SoKAConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicSoKA(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto y = linear(base, x);
    if (sigma_) {
      auto s = tape.parameter(sigma_);
      if (residual_) s = sub(s, tape.constant(first_sigma_));
      const auto b = mul(tape.constant(first_b_), reshape(s, {s.value().size(), 1, 1}));
      return add(y, terms(x, tape.constant(first_a_), b));
    }
    auto a = tape.parameter(a_), b = tape.parameter(b_);
    if (residual_) {
      a = concat_along(0, std::vector<BasicVar<T>>{a, tape.constant(first_a_)});
      b = concat_along(0, std::vector<BasicVar<T>>{b, scale(tape.constant(first_b_), T{-1})});
    }
    return add(y, scale(terms(x, a, b), scaling_));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    if (sigma_) return {detail::named("soka_sigma", sigma_)};
    return {detail::named("soka_A", a_), detail::named("soka_B", b_)};
  }

 private:
  /// Σ_k x (A_k ⊗ B_k)ᵀ. a: [r, m, n], b: [r, p, q].
  static BasicVar<T> terms(const BasicVar<T>& x, const BasicVar<T>& a, const BasicVar<T>& b) {
    const Index rows = x.rows(), r = a.dim(0), m = a.dim(1), n = a.dim(2), p = b.dim(1),
                q = b.dim(2);
    const auto by_n = reshape(permute(reshape(x, {rows, n, q}), {0, 2, 1}), {rows * q, n});
    auto h = matmul(by_n, reshape(a, {r * m, n}), Transpose::no, Transpose::yes);
    h = reshape(permute(reshape(h, {rows, q, r, m}), {0, 3, 2, 1}), {rows * m, r * q});
    h = matmul(h, reshape(permute(b, {0, 2, 1}), {r * q, p}));
    return reshape(h, x.shape().with_last(m * p));
  }

  T scaling_;
  bool residual_;
  BasicTensor<T> first_a_, first_b_, first_sigma_;
  BasicParameter<T> a_, b_, sigma_;
};

using SoKA = BasicSoKA<float>;

}  // namespace graft::inline v0_1
