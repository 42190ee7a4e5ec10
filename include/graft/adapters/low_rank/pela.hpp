#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"
#include "graft/autograd/ops/loss.hpp"
#include "graft/tensor/decompositions.hpp"

namespace graft::inline v0_1 {

/// Configuration of PELA.
struct PELAConfig {
  double compress_ratio = 3;
  double feature_weight = 1;    ///< of the distillation of features, see pela_feature_loss
  double bound_epsilon = 1e-3;  ///< largest change of a weight that costs nothing to come near
  double bound_weight = 1;
  Index smallest_output = 10;  ///< layers with fewer outputs stay as they are
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "PELA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("compress_ratio", compress_ratio);
    v("feature_weight", feature_weight);
    v("bound_epsilon", bound_epsilon);
    v("bound_weight", bound_weight);
    optional_field(v, "smallest_output", smallest_output, Index{10});
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for a ratio that is not positive.
  void validate() const {
    if (!(compress_ratio > 0))
      throw ValueError(concat("PELA: compress_ratio ", compress_ratio, ", expected more than 0"));
  }
  /// ⌊in out / (c (in + out))⌋, at least one and at most min(in, out).
  Index rank(Index in, Index out) const {
    const double k = static_cast<double>(in) * static_cast<double>(out) /
                     (compress_ratio * static_cast<double>(in + out));
    return std::clamp<Index>(static_cast<Index>(std::floor(k)), 1, std::min(in, out));
  }
};

/// κ · mean over layers of the mean squared difference between features of the student and those of
/// the teacher, the frozen model (adapters switched off).
template <std::floating_point T>
BasicVar<T> pela_feature_loss(const std::vector<BasicVar<T>>& student,
                              const std::vector<BasicTensor<T>>& teacher,
                              const PELAConfig& config) {
  if (student.empty() || student.size() != teacher.size())
    throw ValueError(concat("PELA: ", student.size(), " features of the student, ", teacher.size(),
                            " of the teacher"));
  BasicVar<T> total;
  for (std::size_t k = 0; k < student.size(); ++k) {
    const auto term = mse(student[k], student[k].tape().constant(teacher[k]));
    total = total ? add(total, term) : term;
  }
  return scale(total, static_cast<T>(config.feature_weight / static_cast<double>(student.size())));
}

/// PELA: y = (x W₁ᵀ) W₂ᵀ + b in place of the frozen layer: W₁: [k, in], W₂: [out, k], from the
/// singular values of W, W₁ = √S_k V_kᵀ, W₂ = U_k √S_k, k = ⌊in out / (c (in + out))⌋.
///
/// Trained: k (in + out), and out of a bias. No identity at the start, the rank is cut; merges to a
/// dense layer. Loss: bound_weight · mean over layers of (max |W₂ W₁ − W| − ε)², whose gradient is
/// that of the one largest entry, and `pela_feature_loss`, for which the caller runs the frozen
/// model. Source: Guo et al. 2023 (arXiv:2310.10700), section 3; the bound is that of the authors'
/// code. Tensors: 0.weight, 1.weight, 1.bias.
template <std::floating_point T>
class BasicPELA {
 public:
  using Scalar = T;
  using Config = PELAConfig;

  BasicPELA(const PELAConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : config_((config.validate(), config)),
        layers_(std::max<std::size_t>(1, site.all_sites.size())),
        weight_(site.weight) {
    const Index in = site.in_features, out = site.out_features, k = config.rank(in, out);
    auto first = BasicTensor<T>::zeros({k, in}), second = BasicTensor<T>::zeros({out, k});
    if (!context.loading) {
      const auto d = svd(site.weight());
      for (Index i = 0; i < k; ++i) {
        const T root = std::sqrt(d.s[i]);
        for (Index c = 0; c < in; ++c) first(i, c) = root * d.v(c, i);
        for (Index o = 0; o < out; ++o) second(o, i) = root * d.u(o, i);
      }
    }
    first_ = BasicParameter<T>(first);
    second_ = BasicParameter<T>(second);
    if (site.bias) bias_ = BasicParameter<T>(site.bias.clone());
  }

  template <Linear L>
  BasicVar<T> apply(const L&, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto h = matmul(x, tape.parameter(first_), Transpose::no, Transpose::yes);
    const auto y = matmul(h, tape.parameter(second_), Transpose::no, Transpose::yes);
    return bias_ ? add(y, tape.parameter(bias_)) : y;
  }
  BasicVar<T> auxiliary_loss(BasicTape<T>& tape) const {
    if (config_.bound_weight == 0 || !weight_) return {};
    const auto w = weight_(), product = detail::product(second_.value(), first_.value());
    Index largest = 0;
    for (Index i = 1; i < w.size(); ++i)
      if (std::abs(product[i] - w[i]) > std::abs(product[largest] - w[largest])) largest = i;
    const Index o = largest / w.cols(), c = largest % w.cols();
    const auto entry =
        matmul(slice(tape.parameter(second_), 0, o, 1), slice(tape.parameter(first_), 1, c, 1));
    const auto excess =
        add_scalar(abs(add_scalar(entry, -w[largest])), static_cast<T>(-config_.bound_epsilon));
    return scale(sum(square(excess)),
                 static_cast<T>(config_.bound_weight / static_cast<double>(layers_)));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(bias_ ? 3 : 2);
    list[0].name = "0.weight";
    list[0].parameter = first_;
    list[1].name = "1.weight";
    list[1].parameter = second_;
    if (bias_) {
      list[2].name = "1.bias";
      list[2].parameter = bias_;
    }
    return list;
  }
  const BasicParameter<T>& first() const { return first_; }
  const BasicParameter<T>& second() const { return second_; }

 private:
  PELAConfig config_;
  std::size_t layers_;
  std::function<BasicTensor<T>()> weight_;  ///< of the frozen layer
  BasicParameter<T> first_, second_, bias_;
};

template <std::floating_point T>
struct PELAMethod {
  using Scalar = T;
  using Config = PELAConfig;
  static MethodInfo info() {
    return {
        .peft_type = "PELA",
        .name = "PELA",
        .family = "low_rank",
        .paper = "arXiv:2310.10700",
        .sites = "linear",
        .parameters = "k (in + out) + bias out, k = floor(in out / (compress_ratio (in + out)))",
        .in_peft = false,
        .identity_at_init = false,
        .adds_up = false};
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    if (site.out_features < config.smallest_output) return nullptr;
    return linear_part(BasicPELA<T>(config, site, context));
  }
};

using PELA = BasicPELA<float>;

}  // namespace graft::inline v0_1
