#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"

namespace graft::inline v0_1 {

/// Configuration of CapaBoost.
struct CapaBoostConfig {
  Index rank = 8;
  double alpha = 16;
  double dropout = 0;
  Index num_masks = 2;
  double density = 0.5;
  std::string sparsity_type = "random";  ///< random, or 2:4: two of each four in a row
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "CAPABOOST";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("lora_alpha", alpha);
    v("lora_dropout", dropout);
    v("num_masks", num_masks);
    v("density", density);
    v("sparsity_type", sparsity_type);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for numbers out of range or an unknown type.
  void validate() const {
    if (rank < 1 || num_masks < 1)
      throw ValueError(concat("CapaBoost: r ", rank, " and ", num_masks, " masks"));
    if (!(density > 0 && density <= 1))
      throw ValueError(concat("CapaBoost: density ", density, ", expected (0, 1]"));
    if (sparsity_type != "random" && sparsity_type != "2:4")
      throw ValueError(
          concat("CapaBoost: sparsity_type '", sparsity_type, "', expected random or 2:4"));
  }
};

/// CapaBoost: y = base(x) + s · drop(x) Σ_i (A ⊙ M_A^i)ᵀ (B ⊙ M_B^i)ᵀ, one pair of factors used d
/// times under fixed masks.
///
/// A: [r, in] ~ U(±1/√in), B: [out, r], zero; trained: r (in + out), for an update of rank up to d
/// r. Masks with ⌊density · size⌋ ones at random places, or 2:4. The identity at the start; merges.
/// The masked factors side by side are one low-rank term. Source: Song et al. 2024
/// (arXiv:2407.01320), section 3.3. Tensors: lora_A.weight, lora_B.weight, mask_A, mask_B.
template <std::floating_point T>
class BasicCapaBoost {
 public:
  using Scalar = T;
  using Config = CapaBoostConfig;

  static MethodInfo info() {
    return {.peft_type = "CAPABOOST",
            .name = "CapaBoost",
            .family = "low_rank",
            .paper = "arXiv:2407.01320",
            .sites = "linear",
            .parameters = "r (in + out)",
            .in_peft = false};
  }

  /// @throws ValueError if a row does not split into fours for 2:4.
  BasicCapaBoost(const CapaBoostConfig& config, const LinearSiteInfo<T>& site,
                 InitContext<T>& context)
      : copies_((config.validate(), config.num_masks)),
        scaling_(static_cast<T>(config.alpha / static_cast<double>(config.rank))),
        dropout_(config.dropout) {
    const Index r = config.rank, in = site.in_features, out = site.out_features;
    if (config.sparsity_type == "2:4" && (r % 4 != 0 || in % 4 != 0))
      throw ValueError(concat("CapaBoost: 2:4 of ", site.path,
                              " needs r and in divisible by 4, got ", r, " and ", in));
    a_ = BasicParameter<T>(detail::kaiming_uniform_tensor<T>(context, {r, in}, in));
    b_ = BasicParameter<T>(BasicTensor<T>::zeros({out, r}));
    masks_a_ = masks(config, {copies_, r, in}, context);
    masks_b_ = masks(config, {copies_, out, r}, context);
    after_load();
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicCapaBoost(const CapaBoostConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicCapaBoost(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto n = static_cast<std::size_t>(copies_);
    const auto a = concat_along(0, std::vector<BasicVar<T>>(n, tape.parameter(a_))),
               b = concat_along(1, std::vector<BasicVar<T>>(n, tape.parameter(b_)));
    return linear_low_rank(base, x, graft::dropout(x, dropout_), mul(a, tape.constant(mask_a_)),
                           mul(b, tape.constant(mask_b_)), scaling_);
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(4);
    list[0].name = "lora_A.weight";
    list[0].parameter = a_;
    list[1].name = "lora_B.weight";
    list[1].parameter = b_;
    list[2].name = "mask_A";
    list[2].index = masks_a_;
    list[3].name = "mask_B";
    list[3].index = masks_b_;
    return list;
  }
  /// The masks as they meet the factors side by side.
  void after_load() {
    const Index r = a_.shape()[0], in = a_.shape()[1], out = b_.shape()[0];
    mask_a_ = BasicTensor<T>::empty({copies_ * r, in});
    mask_b_ = BasicTensor<T>::empty({out, copies_ * r});
    for (Index i = 0; i < mask_a_.size(); ++i)
      mask_a_[i] = masks_a_->values[static_cast<std::size_t>(i)] != 0 ? T{1} : T{0};
    for (Index m = 0; m < copies_; ++m)
      for (Index o = 0; o < out; ++o)
        for (Index k = 0; k < r; ++k)
          mask_b_(o, m * r + k) =
              masks_b_->values[static_cast<std::size_t>((m * out + o) * r + k)] != 0 ? T{1} : T{0};
  }

 private:
  static std::shared_ptr<IndexTensor> masks(const CapaBoostConfig& config, const Shape& shape,
                                            InitContext<T>& context) {
    auto result = std::make_shared<IndexTensor>();
    result->type = IndexTensor::Type::u8;
    result->shape = shape;
    result->values.assign(static_cast<std::size_t>(shape.elements()), 0);
    if (context.loading) return result;
    const bool fours = config.sparsity_type == "2:4";
    const Index whole = shape[1] * shape[2], piece = fours ? 4 : whole,
                ones = fours ? 2
                             : static_cast<Index>(
                                   std::floor(config.density * static_cast<double>(whole)));
    for (Index first = 0; first < shape.elements(); first += piece) {
      const auto order = context.generator.randperm(piece);
      for (Index i = 0; i < ones; ++i)
        result->values[static_cast<std::size_t>(first + order[static_cast<std::size_t>(i)])] = 1;
    }
    return result;
  }

  Index copies_;
  T scaling_;
  double dropout_;
  BasicParameter<T> a_, b_;
  std::shared_ptr<IndexTensor> masks_a_, masks_b_;
  BasicTensor<T> mask_a_, mask_b_;
};

using CapaBoost = BasicCapaBoost<float>;

}  // namespace graft::inline v0_1
