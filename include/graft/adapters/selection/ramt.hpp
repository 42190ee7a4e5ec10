#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "graft/adapters/effective_weight.hpp"
#include "graft/adapters/method.hpp"
#include "graft/autograd/ops/straight_through.hpp"

namespace graft::inline v0_1 {

/// Configuration of R-AMT.
struct RAMTConfig {
  double threshold = 5e-3;           ///< τ
  double mask_init = 1e-2;           ///< scores at the start; above τ: the identity
  double regulariser_weight = 1e-4;  ///< λ
  /// λ of gradient dropout, see ramt_gradient: for training loops that have both gradients
  double gradient_dropout_lambda = 1;
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "RAMT";

  template <class Visitor>
  void fields(Visitor& v) {
    v("threshold", threshold);
    v("mask_init", mask_init);
    v("regulariser_weight", regulariser_weight);
    v("gradient_dropout_lambda", gradient_dropout_lambda);
    v("target_modules", target_modules);
    select.fields(v);
  }
};

/// R-AMT: y = x (1[s > τ] ⊙ W)ᵀ + b, a learned binary mask on the frozen weight.
///
/// s: [out, in]; trained: out in. Gradient of s: that of the mask, (dyᵀ x) ⊙ W. Auxiliary loss: λ
/// ‖s‖₂ (not squared). The identity while all scores are above τ; merges. The mask is built again
/// in the backward pass. Source: Zheng et al. 2023 (arXiv:2307.15049), section 3.2. Tensor:
/// mask_scores.
template <std::floating_point T>
class BasicRAMT {
 public:
  using Scalar = T;
  using Config = RAMTConfig;

  static MethodInfo info() {
    return {.peft_type = "RAMT",
            .name = "R-AMT",
            .family = "selection",
            .paper = "arXiv:2307.15049",
            .sites = "linear, conv",
            .parameters = "out in",
            .in_peft = false,
            .exact_gradient = false};
  }

  BasicRAMT(const RAMTConfig& config, const LinearSiteInfo<T>& site, InitContext<T>&)
      : threshold_(static_cast<T>(config.threshold)),
        weight_(static_cast<T>(config.regulariser_weight)),
        scores_(BasicTensor<T>::full({site.out_features, site.in_features},
                                     static_cast<T>(config.mask_init))) {}
  /// For a layer of one's own.
  template <Linear L>
  BasicRAMT(const RAMTConfig& config, const L& base)
      : BasicRAMT(config, site_info(base), StandaloneInit<T>(0).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    return detail::effective_weight(base, x,
                                    [scores = scores_, threshold = threshold_,
                                     root = &detail::root_of(base)](BasicTape<T>& tape) {
                                      return mul(
                                          straight_through_above(tape.parameter(scores), threshold),
                                          tape.constant(weight_of(*root)));
                                    });
  }
  BasicVar<T> auxiliary_loss(BasicTape<T>& tape) const {
    if (weight_ == T{0}) return {};
    return scale(norm(tape.parameter(scores_)), weight_);
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(1);
    list[0].name = "mask_scores";
    list[0].parameter = scores_;
    return list;
  }

 private:
  T threshold_, weight_;
  BasicParameter<T> scores_;
};

/// Gradient dropout of R-AMT: with the gradient `task` of the loss and `general` of KL(zero-shot ‖
/// current), p = ½ (1 + sgn(task) (task + general) / (|task| + |general| + 1e-8)); task is kept
/// where p > uniform. Result: (λ kept + 1 − λ) task.
template <std::floating_point T>
BasicTensor<T> ramt_gradient(const BasicTensor<T>& task, const BasicTensor<T>& general,
                             const BasicTensor<T>& uniform, double lambda,
                             BasicTensor<T>* probability = nullptr) {
  auto result = BasicTensor<T>::empty(task.shape());
  if (probability != nullptr) *probability = BasicTensor<T>::empty(task.shape());
  for (Index i = 0; i < task.size(); ++i) {
    const T a = task[i], b = general[i];
    const T sign = a > T{0} ? T{1} : a < T{0} ? T{-1} : T{0};
    const T p = (1 + sign * (a + b) / (std::abs(a) + std::abs(b) + static_cast<T>(1e-8))) / 2;
    if (probability != nullptr) (*probability)[i] = p;
    const T kept = p > uniform[i] ? T{1} : T{0};
    result[i] = static_cast<T>(lambda) * kept * a + static_cast<T>(1 - lambda) * a;
  }
  return result;
}

using RAMT = BasicRAMT<float>;

}  // namespace graft::inline v0_1
