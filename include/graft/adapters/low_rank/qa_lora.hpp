#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"
#include "graft/autograd/ops/take_shared.hpp"

namespace graft::inline v0_1 {

/// Configuration of QA-LoRA.
struct QALoRAConfig {
  Index rank = 64;
  double alpha = 16;
  double dropout = 0;
  Index qalora_group_size = 32;
  /// Of a group: mean, sum (that of the paper's listing), or peft: the mean times the number of
  /// groups.
  std::string pooling = "mean";
  Index bits = 4;  ///< of the base that it is meant for; kept in files
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "QA_LORA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("lora_alpha", alpha);
    v("lora_dropout", dropout);
    v("qalora_group_size", qalora_group_size);
    v("pooling", pooling);
    v("bits", bits);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for sizes below one or an unknown pooling.
  void validate() const {
    if (rank < 1 || qalora_group_size < 1)
      throw ValueError(concat("QA-LoRA: r ", rank, " and groups of ", qalora_group_size));
    if (pooling != "mean" && pooling != "sum" && pooling != "peft")
      throw ValueError(concat("QA-LoRA: pooling '", pooling, "', expected mean, sum or peft"));
  }
};

/// QA-LoRA: y = base(x) + s · pool(drop(x)) Aᵀ Bᵀ, pool the means (or sums) of groups of g
/// neighbouring inputs.
///
/// A: [r, in / g] ~ U(±1/√(in / g)), B: [out, r], zero; trained: r (in / g + out). The update has
/// one value for the inputs of a group, so that it fits into the zero points of a base quantised in
/// these groups: z ← z − (s / g) (B A) / σ for the mean (`merged_zeros`). The identity at the
/// start; merges into a dense weight. Source: Xu et al. 2023 (arXiv:2309.14717), algorithm 1; the
/// mean is that of its code. Hugging Face PEFT's variant is LoRA with `use_qalora`. Tensors:
/// lora_A.weight, lora_B.weight.
template <std::floating_point T>
class BasicQALoRA {
 public:
  using Scalar = T;
  using Config = QALoRAConfig;

  static MethodInfo info() {
    return {.peft_type = "QA_LORA",
            .name = "QA-LoRA",
            .family = "low_rank",
            .paper = "arXiv:2309.14717",
            .sites = "linear",
            .parameters = "r (in / g + out), g = qalora_group_size",
            .in_peft = false};
  }

  /// @throws ValueError if the group does not divide the inputs.
  BasicQALoRA(const QALoRAConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : dropout_((config.validate(), config.dropout)) {
    const Index g = config.qalora_group_size, in = site.in_features, r = config.rank;
    if (in % g != 0)
      throw ValueError(concat("QA-LoRA: qalora_group_size ", g, " for ", in, " inputs of ",
                              site.path, ", expected a divisor"));
    a_ = BasicParameter<T>(detail::kaiming_uniform_tensor<T>(context, {r, in / g}, in / g));
    b_ = BasicParameter<T>(BasicTensor<T>::zeros({site.out_features, r}));
    std::vector<std::int32_t> groups;
    for (Index k = 0; k < r; ++k)
      for (Index i = 0; i < in; ++i)
        groups.push_back(static_cast<std::int32_t>(k * (in / g) + i / g));
    groups_ = std::make_shared<const std::vector<std::int32_t>>(std::move(groups));
    const double each = config.pooling == "sum" ? 1.0
                        : config.pooling == "peft"
                            ? static_cast<double>(in / g) / static_cast<double>(g)
                            : 1.0 / static_cast<double>(g);
    scaling_ = static_cast<T>(config.alpha / static_cast<double>(r) * each);
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicQALoRA(const QALoRAConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicQALoRA(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto a = take_shared(tape.parameter(a_), groups_, {a_.shape()[0], base.in_features()});
    return linear_low_rank(base, x, graft::dropout(x, dropout_), a, tape.parameter(b_), scaling_);
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(2);
    list[0].name = "lora_A.weight";
    list[0].parameter = a_;
    list[1].name = "lora_B.weight";
    list[1].parameter = b_;
    return list;
  }

  /// The zero points of a base ŵ = σ (q − z) with the update in them; q and σ stay. scales, zeros:
  /// [out, in / g], the result too. @throws ShapeError for other sizes, ValueError for a scale of 0
  BasicTensor<T> merged_zeros(const BasicTensor<T>& scales, const BasicTensor<T>& zeros) const {
    const Shape expected{b_.shape()[0], a_.shape()[1]};
    if (scales.shape() != expected || zeros.shape() != expected)
      throw ShapeError(concat("QA-LoRA: scales ", scales.shape().text(), " and zeros ",
                              zeros.shape().text(), ", expected ", expected.text()));
    const auto update = detail::product(b_.value(), a_.value(), scaling_);
    auto merged = zeros.clone();
    for (Index i = 0; i < merged.size(); ++i) {
      if (scales[i] == 0) throw ValueError(concat("QA-LoRA: scale ", i, " of the base is zero"));
      merged[i] -= update[i] / scales[i];
    }
    return merged;
  }

 private:
  double dropout_;
  T scaling_ = 1;
  BasicParameter<T> a_, b_;
  std::shared_ptr<const std::vector<std::int32_t>> groups_;
};

using QALoRA = BasicQALoRA<float>;

}  // namespace graft::inline v0_1
