#pragma once

#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"

namespace graft::inline v0_1 {

/// Configuration of PSEC.
struct PSECConfig {
  Index rank = 8;
  double alpha = 16;  ///< the coefficient of a skill that is trained, as it is
  double dropout = 0;
  Index skills = 1;
  Index phase = 1;                       ///< 1: a skill is trained; 2: the composition of all
  Index active_skill = -1;               ///< of phase 1; -1: the last one
  Index context_features = 0;            ///< of phase 2
  std::vector<Index> hidden = {64, 64};  ///< widths of the composition's layers
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "PSEC";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("alpha", alpha);
    v("lora_dropout", dropout);
    v("skills", skills);
    v("phase", phase);
    v("active_skill", active_skill);
    v("context_features", context_features);
    v("hidden", hidden);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for settings out of range.
  void validate() const {
    if (rank < 1 || skills < 1 || active_skill < -1 || active_skill >= skills)
      throw ValueError(concat("PSEC: r ", rank, ", skills ", skills, ", active_skill ",
                              active_skill, ", expected at least 1, and one of the skills"));
    if (phase != 1 && phase != 2)
      throw ValueError(concat("PSEC: phase ", phase, ", expected 1 or 2"));
    if (phase == 2 && context_features < 1)
      throw ValueError(
          concat("PSEC: context_features ", context_features, " in phase 2, expected at least 1"));
    for (const Index width : hidden)
      if (width < 1) throw ValueError(concat("PSEC: hidden ", width, ", expected at least 1"));
  }
  Index active() const { return active_skill < 0 ? skills - 1 : active_skill; }
};

/// PSEC: y = base(x) + Σ_i a_i(c) · (drop(x) A_iᵀ) B_iᵀ: a library of low-rank skills on one layer.
///
/// A_i: [r, in], N(0, 1/in) cut off at two deviations, B_i: [out, r], zero. Phase 1 trains one
/// skill alone with a = alpha, the others rest: r (in + out). Phase 2 trains a = MLP(c), [rows,
/// skills], of a context, shared by all layers, with ReLU between its layers; its loss is (mean a −
/// alpha / 2)² + (mean a_last − alpha)². The identity at the start; merges in phase 1. The context
/// of the batch is set before a forward pass (`set_context`): one row for each of x, or for equal
/// groups of neighbouring rows. Source: Liu et al. 2025 (arXiv:2502.05932); truncation
/// and loss are those of the authors' code. Tensors: lora_A.i, lora_B.i,
/// shared.composition.2k.weight, .bias.
template <std::floating_point T>
class BasicPSEC {
 public:
  using Scalar = T;
  using Config = PSECConfig;

  static MethodInfo info() {
    return {.peft_type = "PSEC",
            .name = "PSEC",
            .family = "low_rank",
            .paper = "arXiv:2502.05932",
            .sites = "linear",
            .parameters = "; r (in + out) in phase 1, the composition in phase 2",
            .in_peft = false};
  }

  BasicPSEC(const PSECConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : config_(config),
        first_(site.all_sites.empty() || site.all_sites.front().first == site.path) {
    config.validate();
    const Index r = config.rank, in = site.in_features, out = site.out_features;
    for (Index i = 0; i < config.skills; ++i) {
      const bool trained = config.phase == 1 && i == config.active();
      auto a = BasicTensor<T>::zeros({r, in});
      if (trained && !context.loading) {
        const double deviation = 1 / std::sqrt(static_cast<double>(in));
        for (T& v : a) {
          double z = context.generator.normal();
          while (std::abs(z) > 2) z = context.generator.normal();
          v = static_cast<T>(deviation * z);
        }
      }
      a_.emplace_back(a, trained);
      b_.emplace_back(BasicTensor<T>::zeros({out, r}), trained);
    }
    if (config.phase == 1) return;
    context_ = context.shared.get(
        "psec.context",
        [&] {
          return BasicTensor<T>::zeros({0, config.context_features});
        },
        false);
    Index width = config.context_features;
    for (std::size_t k = 0; k <= config.hidden.size(); ++k) {
      const Index next = k < config.hidden.size() ? config.hidden[k] : config.skills;
      const auto layer = [&](const char* tensor, const Shape& shape) {
        return context.shared.get(concat("psec.", 2 * k, tensor), [&] {
          return detail::kaiming_uniform_tensor<T>(context, shape, width);
        });
      };
      composition_.emplace_back(layer(".weight", {next, width}), layer(".bias", {next}));
      width = next;
    }
  }

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto dropped = graft::dropout(x, config_.dropout);
    if (config_.phase == 1) {
      const auto i = static_cast<std::size_t>(config_.active());
      return linear_low_rank(base, x, dropped, tape.parameter(a_[i]), tape.parameter(b_[i]),
                             static_cast<T>(config_.alpha));
    }
    std::vector<BasicVar<T>> a, b;
    for (std::size_t i = 0; i < a_.size(); ++i) {
      a.push_back(tape.parameter(a_[i]));
      b.push_back(tape.parameter(b_[i]));
    }
    const auto c = coefficients(tape);
    if (x.rows() % c.rows() != 0)
      throw ShapeError(
          concat("PSEC: a context of ", c.rows(), " rows for an input ", x.shape().text()));
    const Index rows = c.rows(), each = x.rows() / rows, n = config_.skills, r = config_.rank;
    const auto h = matmul(dropped, concat_along(0, a), Transpose::no, Transpose::yes);
    const auto mixed = mul(reshape(h, {rows, each, n, r}), reshape(c, {rows, 1, n, 1}));
    return add(linear(base, x), matmul(reshape(mixed, h.shape()), concat_along(1, b), Transpose::no,
                                       Transpose::yes));
  }
  /// a(c): [rows of the context, skills], in phase 2. @throws ValueError if no context is set.
  BasicVar<T> coefficients(BasicTape<T>& tape) const {
    if (!context_ || context_.shape()[0] == 0)
      throw ValueError("PSEC: no context for the composition of skills, see set_context");
    auto h = tape.parameter(context_);
    for (std::size_t k = 0; k < composition_.size(); ++k) {
      if (k > 0) h = relu(h);
      h = affine(h, composition_[k].first, composition_[k].second);
    }
    return h;
  }
  /// The context of all layers for the forward passes to come: [rows, context_features].
  /// @throws ShapeError for another width, ValueError in phase 1.
  void set_context(const BasicTensor<T>& rows) const {
    if (!context_) throw ValueError("PSEC: phase 1 has no context");
    if (rows.rank() != 2 || rows.cols() != config_.context_features || rows.rows() < 1)
      throw ShapeError(concat("PSEC: context ", rows.shape().text(), ", expected [rows, ",
                              config_.context_features, "]"));
    context_.assign(rows);
  }
  /// The context as a parameter, which gives its gradient when it is made trainable; not saved.
  const BasicParameter<T>& context() const { return context_; }
  /// The pair of a skill.
  const BasicParameter<T>& a(Index skill) const { return a_.at(static_cast<std::size_t>(skill)); }
  const BasicParameter<T>& b(Index skill) const { return b_.at(static_cast<std::size_t>(skill)); }

  BasicVar<T> auxiliary_loss(BasicTape<T>& tape) const {
    if (config_.phase == 1 || !first_ || context_.shape()[0] == 0) return {};
    const auto c = coefficients(tape);
    const T alpha = static_cast<T>(config_.alpha);
    const auto last = slice(c, -1, config_.skills - 1, 1);
    return add(square(add_scalar(mean(c), -alpha / 2)), square(add_scalar(mean(last), -alpha)));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    for (std::size_t i = 0; i < a_.size(); ++i)
      for (const bool first : {true, false}) {
        list.push_back(
            detail::named(concat(first ? "lora_A." : "lora_B.", i), first ? a_[i] : b_[i]));
      }
    for (std::size_t k = 0; k < composition_.size(); ++k)
      for (const bool weight : {true, false}) {
        list.push_back(
            detail::shared_tensor(concat("composition.", 2 * k, weight ? ".weight" : ".bias"),
                                  weight ? composition_[k].first : composition_[k].second));
      }
    return list;
  }
  std::string merge_reason() const {
    return config_.phase == 1 ? "" : "the coefficients of PSEC's skills depend on the row";
  }

 private:
  PSECConfig config_;
  bool first_;  ///< the layer whose loss is that of the composition
  std::vector<BasicParameter<T>> a_, b_;
  BasicParameter<T> context_;
  std::vector<std::pair<BasicParameter<T>, BasicParameter<T>>> composition_;
};

using PSEC = BasicPSEC<float>;

}  // namespace graft::inline v0_1
