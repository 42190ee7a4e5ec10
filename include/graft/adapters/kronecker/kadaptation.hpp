#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "graft/adapters/kronecker/factors.hpp"
#include "graft/adapters/sublayer.hpp"
#include "graft/base/order.hpp"

namespace graft::inline v0_1 {

/// Configuration of KAdaptation.
struct KAdaptationConfig {
  Index phm_dim = 32;
  double scaling = 160;
  double h_dropout = 0.5;                           ///< of the entries of H
  bool drop_x = false;                              ///< dropout of the input in place of H
  std::map<std::string, std::string> rule_of = {};  ///< site -> kind; else its last name
  TargetModules target_modules = {};                ///< default: query and value
  Selection select = {};

  static constexpr const char* kPeftType = "KADAPTATION";

  template <class Visitor>
  void fields(Visitor& v) {
    v("phm_dim", phm_dim);
    v("scaling", scaling);
    v("h_dropout", h_dropout);
    v("drop_x", drop_x);
    v("rule_of", rule_of);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for a dimension below one or a dropout outside of [0, 1).
  void validate() const {
    if (phm_dim < 1)
      throw ValueError(concat("KAdaptation: phm_dim ", phm_dim, ", expected at least 1"));
    if (!(h_dropout >= 0 && h_dropout < 1))
      throw ValueError(concat("KAdaptation: h_dropout ", h_dropout, ", expected in [0, 1)"));
  }
};

/// KAdaptation: y = base(x) + s · x H + β, H = Σ_i (p_i q_i) ⊗ (u_i v_i).
///
/// p: [n, n, 1], q: [n, 1, n], one pair for every kind of layer (all queries, all values); u: [n,
/// in/n, 1], v: [n, 1, out/n], β: [out]; trained: in + 2 out a layer, 2 n² a kind. The identity at
/// the start (u = 0, β = 0); merges. H is formed only for its own dropout while training, as the
/// definition wants. Source: He et al. 2023 (arXiv:2203.16329), section 3.3; deviation: v begins
/// Glorot-uniform (u and v both zero would never learn). Tensors: shared.kadaptation_<kind>_{p, q},
/// kadaptation_{u, v, bias}.
template <std::floating_point T>
class BasicKAdaptation {
 public:
  using Scalar = T;
  using Config = KAdaptationConfig;

  static MethodInfo info() {
    return {.peft_type = "KADAPTATION",
            .name = "KAdaptation",
            .family = "kronecker",
            .paper = "arXiv:2203.16329",
            .sites = "linear",
            .parameters = "in + 2 out, once 2 n^2, n = phm_dim",
            .in_peft = false};
  }

  BasicKAdaptation(const KAdaptationConfig& config, const LinearSiteInfo<T>& site,
                   InitContext<T>& context)
      : scaling_(static_cast<T>(config.scaling)),
        dropout_(config.h_dropout),
        drop_x_(config.drop_x) {
    config.validate();
    const Index n = config.phm_dim, in = site.in_features, out = site.out_features;
    detail::require_division("KAdaptation", "phm_dim", n, in, site.path);
    detail::require_division("KAdaptation", "phm_dim", n, out, site.path);
    const auto own = config.rule_of.find(site.path);
    kind_ = "kadaptation_" + (own == config.rule_of.end() ? site.name() : own->second);
    const auto rule = [&](const char* name, const Shape& shape) {
      return context.shared.get(kind_ + name, [&] {
        auto t = BasicTensor<T>::zeros(shape);
        if (!context.loading) context.generator.uniform(t.data(), t.size(), -0.01, 0.01);
        return t;
      });
    };
    p_ = rule("_p", {n, n, 1});
    q_ = rule("_q", {n, 1, n});
    u_ = detail::constant<T>({n, in / n, 1}, 0);
    v_ = detail::glorot_stack<T>(context, {n, 1, out / n});
    bias_ = detail::constant<T>({out}, 0);
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicKAdaptation(const KAdaptationConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicKAdaptation(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto rule = matmul(tape.parameter(p_), tape.parameter(q_));
    const auto times = [&](const BasicVar<T>& rows) {
      return detail::hypercomplex_product(rows, rule, tape.parameter(u_), tape.parameter(v_));
    };
    BasicVar<T> y;
    if (tape.training() && dropout_ > 0 && !drop_x_) {
      const auto h = times(tape.constant(BasicTensor<T>::identity(base.in_features())));
      y = matmul(x, h_mask_ ? mul(h, tape.constant(h_mask_)) : dropout(h, dropout_));
    } else {
      y = times(drop_x_ ? dropout(x, dropout_) : x);
    }
    return add(add(linear(base, x), scale(y, scaling_)), tape.parameter(bias_));
  }
  /// Factors [in, out] of H while training, 0 or 1 / (1 − p), in place of drawn ones; empty: drawn.
  void set_h_mask(BasicTensor<T> mask) { h_mask_ = std::move(mask); }
  std::vector<AdapterTensor<T>> tensors() const {
    return {detail::shared_tensor(kind_ + "_p", p_), detail::shared_tensor(kind_ + "_q", q_),
            detail::named("kadaptation_u", u_), detail::named("kadaptation_v", v_),
            detail::named("kadaptation_bias", bias_)};
  }

 private:
  T scaling_;
  double dropout_;
  bool drop_x_;
  std::string kind_;
  BasicTensor<T> h_mask_;
  BasicParameter<T> p_, q_, u_, v_, bias_;
};

using KAdaptation = BasicKAdaptation<float>;

/// Local intrinsic dimension of samples (rows) by maximum likelihood over the k nearest neighbours
/// (Levina and Bickel 2005): the mean over the samples of [1/(k−1) Σ_{j<k} ln(T_k / T_j)]⁻¹, T_j
/// the distance to the j-th neighbour. KAdaptation adapts the modules with the smallest.
/// @throws ValueError if there are not more than k samples, or k is below 2.
template <std::floating_point T>
double local_intrinsic_dimension(const BasicTensor<T>& features, Index k) {
  const Index rows = features.rows(), width = features.cols();
  if (k < 2 || rows <= k)
    throw ValueError(concat("local intrinsic dimension: ", k, " neighbours of ", rows, " samples"));
  double total = 0;
  std::vector<double> distance;
  for (Index i = 0; i < rows; ++i) {
    distance.clear();
    for (Index j = 0; j < rows; ++j) {
      if (j == i) continue;
      double square = 0;
      for (Index c = 0; c < width; ++c) {
        const double d = static_cast<double>(features(i, c)) - static_cast<double>(features(j, c));
        square += d * d;
      }
      distance.push_back(std::sqrt(square));
    }
    std::partial_sort(distance.begin(), distance.begin() + k, distance.end());
    double logs = 0;
    for (Index j = 0; j + 1 < k; ++j)
      logs += std::log(distance[static_cast<std::size_t>(k - 1)] /
                       distance[static_cast<std::size_t>(j)]);
    total += static_cast<double>(k - 1) / logs;
  }
  return total / static_cast<double>(rows);
}

}  // namespace graft::inline v0_1
