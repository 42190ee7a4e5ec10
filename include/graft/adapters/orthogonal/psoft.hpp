#pragma once

#include <cmath>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/adapter.hpp"
#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/orthogonal/cayley.hpp"
#include "graft/adapters/randomized_svd.hpp"
#include "graft/autograd/ops/linalg.hpp"

namespace graft::inline v0_1 {

/// Configuration of PSOFT, fields as PEFT's PsoftConfig.
struct PSOFTConfig {
  Index rank = 32;
  double alpha = 32;                   ///< scaling = alpha / rank
  double dropout = 0;                  ///< on the input of the branch, while training
  std::string ab_init = "psoft_init";  ///< or "pissa_init", the root of S on both sides
  std::string svd = "full";            ///< or "lowrank", randomised
  Index svd_iterations = 10;           ///< of the randomised one
  std::uint64_t random_seed = 0;       ///< of the randomised one
  bool orthogonal = true;              ///< R from a skew matrix; false: R itself is trained
  bool mag_a = true, mag_b = true;     ///< trained factors of R's columns and rows
  bool use_cayley_neumann = false;
  Index num_cayley_neumann_terms = 5;
  std::optional<double> cayley_neumann_eps = {};  ///< longest Q of the series, in (0, 1)
  bool fan_in_fan_out = false;
  bool init_weights = true;  ///< R = I; false: N(0, 0.1) on top
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "PSOFT";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("psoft_alpha", alpha);
    v("psoft_dropout", dropout);
    v("ab_svd_init", ab_init);
    v("psoft_svd", svd);
    v("psoft_svd_lowrank_niter", svd_iterations);
    v("random_seed", random_seed);
    v("psoft_orth", orthogonal);
    v("psoft_mag_a", mag_a);
    v("psoft_mag_b", mag_b);
    v("use_cayley_neumann", use_cayley_neumann);
    v("num_cayley_neumann_terms", num_cayley_neumann_terms);
    v("cayley_neumann_eps", cayley_neumann_eps);
    v("fan_in_fan_out", fan_in_fan_out);
    v("init_weights", init_weights);
    v("target_modules", target_modules);
    select.fields(v, {.rank_pattern = false, .alpha_pattern = false});
  }
  /// @throws ValueError for a rank, a series or a name that there is not.
  void validate() const {
    if (rank < 1) throw ValueError(concat("PSOFT: r ", rank, ", expected at least 1"));
    if (ab_init != "psoft_init" && ab_init != "pissa_init")
      throw ValueError(
          concat("PSOFT: ab_svd_init '", ab_init, "', expected psoft_init or pissa_init"));
    if (svd != "full" && svd != "lowrank")
      throw ValueError(concat("PSOFT: psoft_svd '", svd, "', expected full or lowrank"));
    if (!use_cayley_neumann) return;
    if (num_cayley_neumann_terms < 1)
      throw ValueError(concat("PSOFT: num_cayley_neumann_terms ", num_cayley_neumann_terms,
                              ", expected at least 1"));
    if (cayley_neumann_eps && !(*cayley_neumann_eps > 0 && *cayley_neumann_eps < 1))
      throw ValueError(
          concat("PSOFT: cayley_neumann_eps ", *cayley_neumann_eps, ", expected between 0 and 1"));
  }
};

/// PSOFT: y = base(x) + s · drop(x) Aᵀ (R − I)ᵀ Bᵀ: a rotation inside the principal subspace of W.
///
/// W ≈ s B A of rank r from the SVD: A = V_rᵀ, B = U_r S_r / s ("psoft_init"), or with the root of
/// S_r / s on both sides; A and B are frozen and, as in PEFT, not in files. R = diag(b) C diag(a),
/// C = (I + Q)(I − Q)⁻¹ for a skew Q whose strict upper triangle is trained, or the first terms of
/// its series, ‖Q‖_F ≤ eps. Trained: r (r − 1) / 2 (r² without orthogonality) + 2 r. The identity
/// at the start; merges. Source: Wu et al. 2025 (arXiv:2505.11235), in the form of PEFT.
///
/// The signs of singular vectors are those of whoever computes them, and R depends on them: after
/// loading what another program trained, R and these A and B may not belong together (PEFT has the
/// same trouble between machines). Tensors: psoft_R.weight, psoft_R.vector_a, psoft_R.vector_b;
/// unsaved, under PEFT's names: _psoft_A_cache, _psoft_B_cache.
template <std::floating_point T>
class BasicPSOFT {
 public:
  using Scalar = T;
  using Config = PSOFTConfig;

  static MethodInfo info() {
    return {.peft_type = "PSOFT",
            .name = "PSOFT",
            .family = "orthogonal",
            .paper = "arXiv:2505.11235",
            .sites = "linear",
            .parameters = "r (r + 3) / 2"};
  }

  /// @throws ValueError if r is above min(in, out).
  BasicPSOFT(const PSOFTConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : config_((config.validate(), config)),
        scaling_(config.alpha / static_cast<double>(config.rank)) {
    const Index r = config.rank, in = site.in_features, out = site.out_features;
    if (r > std::min(in, out))
      throw ValueError(concat("PSOFT: r ", r, " above min(", in, ", ", out, ") at ", site.path));
    const bool random = !config.init_weights && !context.loading;
    auto weight =
        config.orthogonal ? BasicTensor<T>::zeros({r * (r - 1) / 2}) : BasicTensor<T>::identity(r);
    if (random) {
      const auto noise = detail::normal_tensor<T>(context.generator, weight.shape(), 0.1);
      for (Index i = 0; i < weight.size(); ++i) weight[i] += noise[i];
    }
    weight_ = BasicParameter<T>(std::move(weight));
    if (config.mag_a) a_ = BasicParameter<T>(BasicTensor<T>::ones({r}));
    if (config.mag_b) b_ = BasicParameter<T>(BasicTensor<T>::ones({r}));
    for (Index i = 0; i < r; ++i)
      for (Index j = i + 1; j < r; ++j) positions_.push_back(i * r + j);

    TorchGenerator generator(config.random_seed);
    const auto d =
        config.svd == "full"
            ? svd(site.weight())
            : randomized_svd(site.weight(), r, static_cast<int>(config.svd_iterations), generator);
    auto inner = BasicTensor<T>::empty({r, in}), outer = BasicTensor<T>::empty({out, r});
    for (Index k = 0; k < r; ++k) {
      const T value = d.s[k] / static_cast<T>(scaling_);
      const bool split = config.ab_init == "pissa_init";
      const T left = split ? std::sqrt(value) : value, right = split ? left : T{1};
      for (Index i = 0; i < in; ++i) inner(k, i) = right * d.v(i, k);
      for (Index o = 0; o < out; ++o) outer(o, k) = left * d.u(o, k);
    }
    inner_ = BasicParameter<T>(std::move(inner), false);
    outer_ = BasicParameter<T>(std::move(outer), false);
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicPSOFT(const PSOFTConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicPSOFT(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto change = sub(rotation(tape), tape.constant(BasicTensor<T>::identity(config_.rank)));
    return linear_low_rank(base, x, graft::dropout(x, config_.dropout),
                           matmul(change, tape.parameter(inner_)), tape.parameter(outer_),
                           static_cast<T>(scaling_));
  }
  /// R: [r, r].
  BasicVar<T> rotation(BasicTape<T>& tape) const {
    const Index r = config_.rank;
    auto matrix = tape.parameter(weight_);
    if (config_.orthogonal) {
      const auto upper = scatter(matrix, positions_, {r, r});
      auto q = sub(upper, transpose(upper));
      if (config_.use_cayley_neumann) {
        if (config_.cayley_neumann_eps)
          q = shortened(q, static_cast<T>(*config_.cayley_neumann_eps));
        matrix = detail::cayley_neumann(q, config_.num_cayley_neumann_terms);
      } else {
        const auto one = tape.constant(BasicTensor<T>::identity(r));
        matrix = matmul(add(one, q), inverse(sub(one, q)));
      }
    }
    if (b_) matrix = mul(matrix, reshape(tape.parameter(b_), {r, 1}));
    if (a_) matrix = mul(matrix, tape.parameter(a_));
    return matrix;
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    const auto append = [&](const char* name, const BasicParameter<T>& parameter, bool saved) {
      if (!parameter) return;
      AdapterTensor<T> t;
      t.name = name;
      t.parameter = parameter;
      t.saved = saved;
      list.push_back(std::move(t));
    };
    append("psoft_R.weight", weight_, true);
    append("psoft_R.vector_b", b_, true);
    append("psoft_R.vector_a", a_, true);
    append("_psoft_A_cache", inner_, false);
    append("_psoft_B_cache", outer_, false);
    return list;
  }

 private:
  /// q with a Frobenius norm of at most eps.
  static BasicVar<T> shortened(const BasicVar<T>& q, T eps) {
    double square = 0;
    for (T v : q.value()) square += static_cast<double>(v) * static_cast<double>(v);
    const double length = std::sqrt(square);
    if (!std::isfinite(length) || length <= static_cast<double>(eps)) return q;
    const auto bound = q.tape().constant(BasicTensor<T>::full({1}, eps));
    return mul(q, div(bound, reshape(add_scalar(norm(q), static_cast<T>(1e-12)), {1})));
  }

  PSOFTConfig config_;
  double scaling_;
  BasicParameter<T> weight_, a_, b_;
  BasicParameter<T> inner_, outer_;
  std::vector<Index> positions_;
};

using PSOFT = BasicPSOFT<float>;

}  // namespace graft::inline v0_1
