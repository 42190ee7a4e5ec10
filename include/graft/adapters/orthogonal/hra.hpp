#pragma once

#include <vector>

#include "graft/adapters/adapter.hpp"
#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"
#include "graft/autograd/ops/linalg.hpp"

namespace graft::inline v0_1 {

/// Configuration of HRA, fields as PEFT's HRAConfig.
struct HRAConfig {
  Index rank = 8;             ///< number of reflections
  bool apply_gs = false;      ///< reflections made orthogonal to each other
  bool init_weights = true;   ///< equal neighbours, which cancel; false: all random
  std::string bias = "none";  ///< trained biases of the base: none, all, hra_only
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "HRA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("apply_GS", apply_gs);
    v("init_weights", init_weights);
    v("bias", bias);
    v("target_modules", target_modules);
    select.fields(v, {.rank_pattern = false, .alpha_pattern = false});
  }
  /// @throws ValueError for a rank below one.
  void validate() const {
    if (rank < 1) throw ValueError(concat("HRA: rank ", rank, ", expected at least 1"));
  }
};

/// HRA: y = base(x Hᵀ), H = H_0 H_1 … H_{r−1}, H_i = I − 2 u_i u_iᵀ with u_i of length one.
///
/// u: [in, rank] as columns; trained: rank · in. With apply_GS the columns are made orthonormal
/// first (Gram and Schmidt), and H = I − 2 Σ u_i u_iᵀ. The reflections act on x together, as
/// I − Uᵀ T U (Schreiber & Van Loan 1989); no in × in matrix appears. The identity at the start for
/// an even rank without apply_GS (pairs cancel). Merges: W H. Source: Yuan et al. 2024
/// (arXiv:2405.17484), eq. 4; deviation: no regularisation, as in PEFT. Tensor: hra_u.
template <std::floating_point T>
class BasicHRA {
 public:
  using Scalar = T;
  using Config = HRAConfig;

  static MethodInfo info() {
    return {.peft_type = "HRA",
            .name = "HRA",
            .family = "orthogonal",
            .paper = "arXiv:2405.17484",
            .sites = "linear, conv",
            .parameters = "r in"};
  }

  BasicHRA(const HRAConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : gram_schmidt_(config.apply_gs) {
    config.validate();
    const Index r = config.rank, in = site.in_features;
    auto u = BasicTensor<T>::zeros({in, r});
    if (!context.loading) {
      const bool pairs = config.init_weights && r % 2 == 0;
      const Index drawn = pairs ? r / 2 : r;
      const auto half = detail::kaiming_uniform_tensor<T>(context.generator, {in, drawn}, drawn);
      for (Index i = 0; i < in; ++i)
        for (Index j = 0; j < r; ++j) u(i, j) = half(i, pairs ? j / 2 : j);
    }
    u_ = BasicParameter<T>(std::move(u));
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicHRA(const HRAConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicHRA(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    const auto u = transpose(x.tape().parameter(u_));
    const Index r = u.dim(0);
    const auto reflect = [](const BasicVar<T>& v, const BasicVar<T>& rows) {
      return sub(v, matmul(scale(matmul(v, rows, Transpose::no, Transpose::yes), T{2}), rows));
    };
    if (gram_schmidt_) {
      auto basis = unit(slice(u, 0, 0, 1));
      for (Index i = 1; i < r; ++i) {
        auto next = slice(u, 0, i, 1);
        next = sub(next, matmul(matmul(next, basis, Transpose::no, Transpose::yes), basis));
        basis = concat_along(0, std::vector<BasicVar<T>>{basis, unit(next)});
      }
      return linear(base, reflect(x, basis));
    }
    // H_0 … H_{r−1} = I − Uᵀ T U with rows u_i of U and T⁻¹ = I / 2 + the part of U Uᵀ above the
    // diagonal: two products of r columns in place of r reflections one after another.
    const auto units = unit(u);
    const auto gram = matmul(units, units, Transpose::no, Transpose::yes);
    auto above = BasicTensor<T>::zeros({r, r}), half = BasicTensor<T>::zeros({r, r});
    for (Index i = 0; i < r; ++i) {
      half(i, i) = T{0.5};
      for (Index j = i + 1; j < r; ++j) above(i, j) = T{1};
    }
    auto& tape = x.tape();
    const auto t = inverse(add(mul(gram, tape.constant(above)), tape.constant(half)));
    // x Hᵀ = x − (x Uᵀ) Tᵀ U.
    const auto h =
        matmul(matmul(x, units, Transpose::no, Transpose::yes), t, Transpose::no, Transpose::yes);
    return linear(base, sub(x, matmul(h, units)));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    list.push_back({.name = "hra_u", .parameter = u_, .index = {}, .file_shape = {}});
    return list;
  }

 private:
  static BasicVar<T> unit(const BasicVar<T>& rows) { return div(rows, norm_last(rows)); }

  bool gram_schmidt_;
  BasicParameter<T> u_;
};

using HRA = BasicHRA<float>;

}  // namespace graft::inline v0_1
