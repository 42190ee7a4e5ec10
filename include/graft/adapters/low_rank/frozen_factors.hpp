#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"
#include "graft/tensor/decompositions.hpp"

namespace graft::inline v0_1 {

/// Configuration of asymmetric LoRA.
struct AsymmetricLoRAConfig {
  Index rank = 8;
  double alpha = 16;
  double dropout = 0;  ///< on the input of the branch, while training; the original: 0.05
  bool update_A = false, update_B = true;
  std::string A_init = "rand";  ///< V: right singular vectors of W, rand: a random frame, he, zero
  std::string B_init = "zero";  ///< U: left singular vectors of W, rand, he, zero
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "ASYMMETRIC_LORA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("lora_alpha", alpha);
    v("lora_dropout", dropout);
    v("update_A", update_A);
    v("update_B", update_B);
    v("A_init", A_init);
    v("B_init", B_init);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for a rank below one, unknown words, nothing to train, or a frozen factor
  /// of zeros.
  void validate() const {
    if (rank < 1) throw ValueError(concat("asymmetric LoRA: r ", rank, ", expected at least 1"));
    const auto known = [](const std::string& word, const char* own) {
      return word == own || word == "rand" || word == "he" || word == "zero";
    };
    if (!known(A_init, "V") || !known(B_init, "U"))
      throw ValueError(concat("asymmetric LoRA: A_init '", A_init, "' and B_init '", B_init,
                              "', expected V or U, rand, he or zero"));
    if (!update_A && !update_B) throw ValueError("asymmetric LoRA: neither factor is trained");
    if ((!update_A && A_init == "zero") || (!update_B && B_init == "zero"))
      throw ValueError("asymmetric LoRA: a frozen factor of zeros learns nothing");
    if (A_init == "zero" && B_init == "zero")
      throw ValueError("asymmetric LoRA: both factors begin as zeros");
  }
};

/// Configuration of LoRA-FA.
struct LoRAFAMethodConfig {
  Index rank = 8;
  double alpha = 8;
  double dropout = 0;
  bool precondition = false;  ///< gradients of B by (A Aᵀ)⁻¹, see lora_fa_gradient
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "LORA_FA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("lora_alpha", alpha);
    v("lora_dropout", dropout);
    optional_field(v, "precondition", precondition, false);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for a rank below one.
  void validate() const {
    if (rank < 1) throw ValueError(concat("LoRA-FA: r ", rank, ", expected at least 1"));
  }
};

namespace detail {

/// `count` orthonormal rows: right singular vectors of w, or left ones.
template <std::floating_point T>
BasicTensor<T> singular_rows(const BasicTensor<T>& w, Index count, bool right) {
  const auto d = svd(w);
  const auto& vectors = right ? d.v : d.u;
  auto rows = BasicTensor<T>::empty({count, vectors.rows()});
  for (Index k = 0; k < count; ++k)
    for (Index i = 0; i < vectors.rows(); ++i) rows(k, i) = vectors(i, k);
  return rows;
}

}  // namespace detail

/// y = base(x) + s · (drop(x) Aᵀ) Bᵀ with a factor that stays frozen. s = alpha / r. While A is
/// frozen, only drop(x) Aᵀ is kept for the backward pass.
template <std::floating_point T>
class BasicFrozenFactorLoRA {
 public:
  using Scalar = T;

  BasicFrozenFactorLoRA(BasicTensor<T> a, bool train_a, BasicTensor<T> b, bool train_b,
                        double scaling, double dropout)
      : a_(std::move(a), train_a),
        b_(std::move(b), train_b),
        scaling_(static_cast<T>(scaling)),
        dropout_(dropout) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    return linear_low_rank(base, x, graft::dropout(x, dropout_), tape.parameter(a_),
                           tape.parameter(b_), scaling_);
  }
  std::vector<AdapterTensor<T>> tensors() const {
    auto list = std::vector{detail::named("lora_A.weight", a_), detail::named("lora_B.weight", b_)};
    list[0].group = "lora_A";
    list[1].group = "lora_B";
    return list;
  }
  const BasicParameter<T>& a() const { return a_; }
  const BasicParameter<T>& b() const { return b_; }
  T scaling() const { return scaling_; }

 private:
  BasicParameter<T> a_, b_;
  T scaling_;
  double dropout_;
};

/// Gradient of B such that a step of gradient descent moves the weight by the projection of its
/// whole gradient on the rows of A: (1/s²) ∂L/∂B (A Aᵀ + 1e-8 I)⁻¹. Source: Wang et al. 2023
/// (arXiv:2308.03303) with the form of PEFT's optimiser.
template <std::floating_point T>
BasicTensor<T> lora_fa_gradient(const BasicTensor<T>& gradient, const BasicTensor<T>& a,
                                T scaling) {
  const Index r = a.rows();
  auto gram =
      detail::product(a.template cast<double>(), a.template cast<double>(), 1.0, false, true);
  for (Index i = 0; i < r; ++i) gram(i, i) += 1e-8;
  const auto inverted = inverse(gram);
  auto result =
      detail::product(gradient.template cast<double>(), inverted,
                      1.0 / (static_cast<double>(scaling) * static_cast<double>(scaling)));
  return result.template cast<T>();
}

/// LoRA-FA with preconditioned gradients.
template <std::floating_point T>
class LoRAFAProcedure final : public Procedure<T> {
 public:
  explicit LoRAFAProcedure(std::vector<BasicFrozenFactorLoRA<T>*> parts)
      : parts_(std::move(parts)) {}
  void after_backward(const StepInfo&) override {
    for (auto* part : parts_)
      if (part->b().grad())
        part->b().mutable_grad() =
            lora_fa_gradient(part->b().grad(), part->a().value(), part->scaling());
  }

 private:
  std::vector<BasicFrozenFactorLoRA<T>*> parts_;
};

/// LoRA-FA: LoRA with the random A frozen.
///
/// A: [r, in] ~ U(±1/√in), frozen and saved, B: [out, r], zero; trained: r out. The identity at the
/// start; merges. Source: Zhang et al. 2023 (arXiv:2308.03303), section 3. Tensors: lora_A.weight,
/// lora_B.weight.
template <std::floating_point T>
struct LoRAFAMethod {
  using Scalar = T;
  using Config = LoRAFAMethodConfig;
  static MethodInfo info() {
    return {.peft_type = "LORA_FA",
            .name = "LoRA-FA",
            .family = "low_rank",
            .paper = "arXiv:2308.03303",
            .sites = "linear",
            .parameters = "r out",
            .in_peft = false};
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    config.validate();
    const Index r = config.rank, in = site.in_features;
    auto a = detail::kaiming_uniform_tensor<T>(context, {r, in}, in);
    return linear_part(
        BasicFrozenFactorLoRA<T>(std::move(a), false, BasicTensor<T>::zeros({site.out_features, r}),
                                 true, config.alpha / static_cast<double>(r), config.dropout));
  }
  static std::unique_ptr<Procedure<T>> procedure(const Config& config,
                                                 const std::vector<PlacedPart<T>>& parts) {
    if (!config.precondition) return nullptr;
    return std::make_unique<LoRAFAProcedure<T>>(methods_of<BasicFrozenFactorLoRA<T>>(parts));
  }
};

/// Asymmetric LoRA: LoRA of which one factor is trained (or both), the other a frozen frame.
///
/// A: [r, in], by default r random orthonormal rows, frozen; B: [out, r], zero, trained; trained: r
/// out, r in, or both. The identity at the start if one factor is zero; merges. Source: Zhu et al.
/// 2024 (arXiv:2402.16842), section 3. `V` and `U` mean singular vectors of W; the released code
/// takes columns of Vᵀ. Tensors: lora_A.weight, lora_B.weight.
template <std::floating_point T>
struct AsymmetricLoRAMethod {
  using Scalar = T;
  using Config = AsymmetricLoRAConfig;
  static MethodInfo info() {
    return {.peft_type = "ASYMMETRIC_LORA",
            .name = "Asymmetric LoRA",
            .family = "low_rank",
            .paper = "arXiv:2402.16842",
            .sites = "linear",
            .parameters = "r out",
            .in_peft = false};
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    config.validate();
    const Index r = config.rank, in = site.in_features, out = site.out_features;
    auto a = rows(config.A_init, r, in, site, context, true);
    const auto bt = rows(config.B_init, r, out, site, context, false);
    auto b = BasicTensor<T>::empty({out, r});
    for (Index o = 0; o < out; ++o)
      for (Index k = 0; k < r; ++k) b(o, k) = bt(k, o);
    return linear_part(
        BasicFrozenFactorLoRA<T>(std::move(a), config.update_A, std::move(b), config.update_B,
                                 config.alpha / static_cast<double>(r), config.dropout));
  }

 private:
  static BasicTensor<T> rows(const std::string& init, Index r, Index width,
                             const LinearSiteInfo<T>& site, InitContext<T>& context, bool right) {
    if (context.loading || init == "zero") return BasicTensor<T>::zeros({r, width});
    if (init == "he")
      return detail::kaiming_uniform_tensor<T>(context.generator, {r, width}, right ? width : r);
    if (r > std::min(site.in_features, site.out_features))
      throw ValueError(concat("asymmetric LoRA: r ", r, " of ", site.path, ", expected at most ",
                              std::min(site.in_features, site.out_features)));
    if (init != "rand") return detail::singular_rows(site.weight(), r, right);
    auto random = BasicTensor<T>::empty({site.out_features, site.in_features});
    context.generator.uniform(random.data(), random.size(), -0.5, 0.5);
    return detail::singular_rows(random, r, right);
  }
};

}  // namespace graft::inline v0_1
