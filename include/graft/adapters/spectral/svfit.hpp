#pragma once

#include <algorithm>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/adapter.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/spectral/factors.hpp"

namespace graft::inline v0_1 {

/// Configuration of SVFit.
struct SVFitConfig {
  std::optional<Index> rank = {};  ///< trained singular values; null: by `energy`
  double energy = 0.99;            ///< share of Σ σ² that the trained ones have
  bool keep_residual = true;       ///< false: the other components are dropped
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "SVFIT";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("energy", energy);
    v("keep_residual", keep_residual);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for a rank below one or an energy outside of (0, 1].
  void validate() const {
    if (rank && *rank < 1) throw ValueError(concat("SVFit: r ", *rank, ", expected at least 1"));
    if (!(energy > 0 && energy <= 1))
      throw ValueError(concat("SVFit: energy ", energy, ", expected in (0, 1]"));
  }
};

/// SVFit: W' = U_r diag(σ') V_rᵀ + W_rest: the leading r singular values are trained. As y =
/// base(x)
/// + ((x V_r) ⊙ (σ' − σ_r)) U_rᵀ, without `keep_residual` y = ((x V_r) ⊙ σ') U_rᵀ + b.
///
/// σ': [r], at first σ_r; trained: r. Without r: the smallest whose Σ_{≤ r} σ² is the share
/// `energy` of the whole. The identity at the start with `keep_residual`; merges. Source: Sun et
/// al. 2024 (arXiv:2409.05926), section 3. Tensor: svfit_sigma; singular vectors come from W and
/// are not saved.
template <std::floating_point T>
class BasicSVFit {
 public:
  using Scalar = T;
  using Config = SVFitConfig;

  static MethodInfo info() {
    return {.peft_type = "SVFIT",
            .name = "SVFit",
            .family = "spectral",
            .paper = "arXiv:2409.05926",
            .sites = "linear",
            .parameters = "; r, by energy",
            .in_peft = false};
  }

  /// @throws ValueError for a rank above min(in, out).
  BasicSVFit(const SVFitConfig& config, const LinearSiteInfo<T>& site, InitContext<T>&)
      : keep_((config.validate(), config.keep_residual)), weight_(site.weight) {
    const Index most = std::min(site.in_features, site.out_features);
    if (config.rank.value_or(1) > most)
      throw ValueError(
          concat("SVFit: r ", *config.rank, " at ", site.path, ", expected at most ", most));
    const auto d = detail::signed_svd(weight_());
    set_rank(d, config.rank ? *config.rank : detail::rank_by_energy(d.s, config.energy));
  }
  /// For a layer of one's own.
  template <Linear L>
  BasicSVFit(const SVFitConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicSVFit(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    auto s = tape.parameter(sigma_);
    if (keep_) s = sub(s, tape.constant(first_));
    const auto y = matmul(mul(matmul(x, tape.constant(v_)), s), tape.constant(u_), Transpose::no,
                          Transpose::yes);
    return keep_ ? add(linear(base, x), y) : detail::in_place_of_weight(base, x, y);
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(1);
    list[0].name = "svfit_sigma";
    list[0].parameter = sigma_;
    return list;
  }
  /// Follows the rank of the file: of a weight that was rounded since, the energy may give another.
  void before_load(const CheckpointShapes& shapes) {
    const Shape* shape = shapes("svfit_sigma");
    if (shape == nullptr || shape->rank() != 1 || *shape == sigma_.shape()) return;
    const auto d = detail::signed_svd(weight_());
    if (shape->elements() >= 1 && shape->elements() <= d.s.size()) set_rank(d, shape->elements());
  }

 private:
  void set_rank(const SingularValues<T>& d, Index rank) {
    u_ = detail::leading_columns(d.u, rank);
    v_ = detail::leading_columns(d.v, rank);
    first_ = detail::leading_elements(d.s, rank);
    sigma_ = BasicParameter<T>(first_.clone());
  }

  bool keep_;
  std::function<BasicTensor<T>()> weight_;
  BasicTensor<T> u_, v_, first_;
  BasicParameter<T> sigma_;
};

using SVFit = BasicSVFit<float>;

/// Number of singular values that SVFit trains: the smallest r whose leading energy Σ_{≤ r} σ²
/// reaches this share of the whole. @throws ShapeError if the weight is no matrix.
template <std::floating_point T>
Index svfit_rank(const BasicTensor<T>& weight, double energy = 0.99) {
  return detail::rank_by_energy(svd(weight).s, energy);
}

}  // namespace graft::inline v0_1
