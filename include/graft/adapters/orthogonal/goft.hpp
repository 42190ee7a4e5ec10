#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/adapter.hpp"
#include "graft/adapters/method.hpp"
#include "graft/autograd/ops/mix_pairs.hpp"

namespace graft::inline v0_1 {

/// Configuration of GOFT.
struct GOFTConfig {
  bool scaling = false;  ///< a trained factor for each input as well
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "GOFT";

  template <class Visitor>
  void fields(Visitor& v) {
    v("scaling", scaling);
    v("target_modules", target_modules);
    select.fields(v);
  }
};

/// Configuration of qGOFT.
struct QGOFTConfig {
  bool scaling = false;          ///< a trained factor for each input as well
  double penalty_weight = 0.01;  ///< λ of the penalty
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "QGOFT";

  template <class Visitor>
  void fields(Visitor& v) {
    v("scaling", scaling);
    v("penalty_weight", penalty_weight);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for a negative weight.
  void validate() const {
    if (!(penalty_weight >= 0))
      throw ValueError(concat("qGOFT: penalty_weight ", penalty_weight, ", expected at least 0"));
  }
};

/// GOFT: y = base(x R ⊙ n), R = P_{L−1} ⋯ P_0 a product of levels of Givens rotations; n only with
/// `scaling`.
///
/// Level l rotates neighbours among the columns at multiples of 2ˡ by [[c, −s], [s, c]], c = cos θ,
/// s = sin θ; a column without partner goes on to the next level. θ: [in − 1], level by level from
/// stride one, zero at first; n: [in], ones at first; trained: in − 1, with `scaling` 2 in − 1. The
/// identity at the start; merges: W Rᵀ, R orthogonal. The rotations act on x in O(in) operations a
/// row. Source: Ma et al. 2024 (arXiv:2404.04316), section 3. Deviations from the released code: θ
/// is not squashed, and every stride pairs with the next multiple of it. Tensors: goft_theta,
/// goft_scale.
///
/// qGOFT (`Config` = QGOFTConfig): every rotation is a free matrix [[α₁, β₁], [α₂, β₂]], the
/// identity at first, with the auxiliary loss λ Σ (α₁ β₁ + α₂ β₂)². Trained: 4 (in − 1), with
/// `scaling` 5 in − 4. Tensors: goft_blocks [in − 1, 2, 2], goft_scale.
template <std::floating_point T, class C>
class BasicGivens {
 public:
  using Scalar = T;
  using Config = C;
  static constexpr bool kQuasi = std::is_same_v<C, QGOFTConfig>;

  static MethodInfo info() {
    return {.peft_type = Config::kPeftType,
            .name = kQuasi ? "qGOFT" : "GOFT",
            .family = "orthogonal",
            .paper = "arXiv:2404.04316",
            .sites = "linear, conv",
            .parameters = kQuasi ? "4 (in - 1)" : "in - 1",
            .in_peft = false};
  }

  /// @throws ValueError at a layer of one input.
  BasicGivens(const Config& config, const LinearSiteInfo<T>& site, InitContext<T>&) {
    if constexpr (kQuasi) {
      config.validate();
      penalty_ = static_cast<T>(config.penalty_weight);
    }
    const Index in = site.in_features;
    if (in < 2)
      throw ValueError(concat(info().name, ": one input at ", site.path, ", expected at least 2"));
    pairs_ = std::make_shared<ColumnPairs>(tree_pairs(in));
    if constexpr (kQuasi) {
      auto blocks = BasicTensor<T>::zeros({in - 1, 2, 2});
      for (Index p = 0; p < in - 1; ++p) blocks[4 * p] = blocks[4 * p + 3] = T{1};
      mixing_ = BasicParameter<T>(std::move(blocks));
    } else {
      mixing_ = BasicParameter<T>(BasicTensor<T>::zeros({in - 1}));
    }
    if (config.scaling) scale_ = BasicParameter<T>(BasicTensor<T>::ones({in}));
  }
  /// For a layer of one's own.
  template <Linear L>
  BasicGivens(const Config& config, const L& base, std::uint64_t seed = 0)
      : BasicGivens(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto h = mix_pairs(x, blocks(x.tape()), pairs_);
    if (scale_) h = mul(h, x.tape().parameter(scale_));
    return linear(base, h);
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(scale_ ? 2 : 1);
    list[0].name = kQuasi ? "goft_blocks" : "goft_theta";
    list[0].parameter = mixing_;
    if (scale_) {
      list[1].name = "goft_scale";
      list[1].parameter = scale_;
    }
    return list;
  }
  BasicVar<T> auxiliary_loss(BasicTape<T>& tape) const
    requires kQuasi
  {
    const auto rows = reshape(tape.parameter(mixing_), {mixing_.size() / 2, 2});
    const auto products = mul(slice(rows, 1, 0, 1), slice(rows, 1, 1, 1));
    return graft::scale(sum(square(sum_axis(reshape(products, {products.size() / 2, 2}), 1))),
                        penalty_);
  }

 private:
  /// [in − 1, 2, 2]
  BasicVar<T> blocks(BasicTape<T>& tape) const {
    if constexpr (kQuasi) {
      return tape.parameter(mixing_);
    } else {
      const auto theta = reshape(tape.parameter(mixing_), {mixing_.size(), 1});
      const auto c = cos(theta), s = sin(theta);
      return concat_along(1, std::vector<BasicVar<T>>{c, graft::scale(s, T{-1}), s, c});
    }
  }

  T penalty_ = 0;
  std::shared_ptr<const ColumnPairs> pairs_;
  BasicParameter<T> mixing_, scale_;
};

template <std::floating_point T>
using BasicGOFT = BasicGivens<T, GOFTConfig>;
template <std::floating_point T>
using BasicQGOFT = BasicGivens<T, QGOFTConfig>;
using GOFT = BasicGOFT<float>;
using QGOFT = BasicQGOFT<float>;

}  // namespace graft::inline v0_1
