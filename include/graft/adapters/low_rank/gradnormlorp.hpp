#pragma once

#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/effective_weight.hpp"
#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/procedure_state.hpp"
#include "graft/tensor/decompositions.hpp"

namespace graft::inline v0_1 {

/// Configuration of GradNormLoRP.
struct GradNormLoRPConfig {
  Index rank = 8;                   ///< of the space that the direction's optimiser works in
  Index projection_interval = 500;  ///< update_proj_gap: steps with one projector
  double scale = 4;                 ///< of the steps of the direction
  double learning_rate = 3e-5;      ///< lr, where the run names none
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-6;
  double weight_decay = 0;
  bool exact_gradient = true;  ///< exact_wn; false: without the slope of the norm
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "GRADNORMLORP";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("update_proj_gap", projection_interval);
    v("scale", scale);
    v("lr", learning_rate);
    v("beta1", beta1);
    v("beta2", beta2);
    v("eps", eps);
    v("weight_decay", weight_decay);
    v("exact_wn", exact_gradient);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for settings out of range.
  void validate() const {
    if (rank < 1 || projection_interval < 1)
      throw ValueError(concat("GradNormLoRP: r ", rank, ", update_proj_gap ", projection_interval,
                              ", expected at least 1"));
    if (!(beta1 >= 0 && beta1 < 1 && beta2 >= 0 && beta2 < 1))
      throw ValueError(
          concat("GradNormLoRP: beta1 ", beta1, " and beta2 ", beta2, ", expected [0, 1)"));
  }
};

/// Projector on the first r singular vectors of a gradient [m, n]: the right ones as rows [r, n] if
/// m ≥ n, else the left ones [m, r]. Of each vector the entry of largest magnitude is positive:
/// moments outlive a projector.
template <std::floating_point T>
BasicTensor<T> gradient_projector(const BasicTensor<T>& gradient, Index r) {
  const Index m = gradient.rows(), n = gradient.cols();
  if (r > std::min(m, n))
    throw ValueError(concat("GradNormLoRP: r ", r, " for a gradient ", gradient.shape().text()));
  const bool tall = m >= n;
  const auto d = svd(gradient);
  const auto& vectors = tall ? d.v : d.u;
  auto p = BasicTensor<T>::empty(tall ? Shape{r, n} : Shape{m, r});
  for (Index k = 0; k < r; ++k) {
    Index largest = 0;
    for (Index i = 1; i < vectors.rows(); ++i)
      if (std::abs(vectors(i, k)) > std::abs(vectors(largest, k))) largest = i;
    const T sign = vectors(largest, k) < 0 ? T{-1} : T{1};
    for (Index i = 0; i < vectors.rows(); ++i) (tall ? p(k, i) : p(i, k)) = sign * vectors(i, k);
  }
  return p;
}

/// Adam on the direction v, in the low-rank space of its gradient, and on the magnitude g of one
/// weight. Memory: 2 r max(out, in) + 2 out moments and r min(out, in) of the projector.
template <std::floating_point T>
class GradNormOptimizer {
 public:
  /// One step; the first one and every projection_interval-th after it take a new projector.
  void step(const GradNormLoRPConfig& config, const BasicTensor<T>& v, const BasicTensor<T>& g,
            const BasicTensor<T>& dv, const BasicTensor<T>& dg, double rate) {
    if (steps_ % config.projection_interval == 0) projector_ = gradient_projector(dv, config.rank);
    ++steps_;
    const bool tall = v.rows() >= v.cols();
    const auto low = tall ? detail::product(dv, projector_, T{1}, false, true)
                          : detail::product(projector_, dv, T{1}, true);
    const double t = static_cast<double>(steps_), size = rate *
                                                         std::sqrt(1 - std::pow(config.beta2, t)) /
                                                         (1 - std::pow(config.beta1, t));
    const auto u = direction_.update(low, config);
    const auto back = tall ? detail::product(u, projector_) : detail::product(projector_, u);
    const auto ug = magnitude_.update(dg, config);
    const double keep = 1 - rate * config.weight_decay;
    for (Index i = 0; i < v.size(); ++i)
      v[i] = static_cast<T>((v[i] - size * config.scale * back[i]) * keep);
    for (Index i = 0; i < g.size(); ++i) g[i] = static_cast<T>((g[i] - size * ug[i]) * keep);
  }
  /// The projector of the last step.
  const BasicTensor<T>& projector() const { return projector_; }

  void keep(detail::ProcedureState& state, const std::string& name) const {
    if (steps_ == 0) return;
    state[name + ".steps"] = {static_cast<double>(steps_)};
    detail::keep_values(state, name + ".projector", projector_);
    direction_.keep(state, name + ".v");
    magnitude_.keep(state, name + ".g");
  }
  void restore(const detail::ProcedureState& state, const std::string& name, Index r,
               const Shape& weight) {
    *this = {};
    steps_ = static_cast<Index>(detail::kept_number(state, name + ".steps", 0));
    if (steps_ == 0) return;
    const Index m = weight[0], n = weight[1];
    projector_ =
        detail::kept_values<T>(state, name + ".projector", m >= n ? Shape{r, n} : Shape{m, r});
    direction_.restore(state, name + ".v", m >= n ? Shape{m, r} : Shape{r, n});
    magnitude_.restore(state, name + ".g", {m, 1});
  }

 private:
  struct Moments {
    BasicTensor<T> first, second;
    BasicTensor<T> update(const BasicTensor<T>& gradient, const GradNormLoRPConfig& config) {
      if (!first) {
        first = BasicTensor<T>::zeros(gradient.shape());
        second = BasicTensor<T>::zeros(gradient.shape());
      }
      auto u = BasicTensor<T>::empty(gradient.shape());
      for (Index i = 0; i < u.size(); ++i) {
        const double d = gradient[i];
        const double a = config.beta1 * first[i] + (1 - config.beta1) * d,
                     b = config.beta2 * second[i] + (1 - config.beta2) * d * d;
        first[i] = static_cast<T>(a);
        second[i] = static_cast<T>(b);
        u[i] = static_cast<T>(a / (std::sqrt(b) + config.eps));
      }
      return u;
    }
    void keep(detail::ProcedureState& state, const std::string& name) const {
      detail::keep_values(state, name + ".first", first);
      detail::keep_values(state, name + ".second", second);
    }
    void restore(const detail::ProcedureState& state, const std::string& name, const Shape& shape) {
      first = detail::kept_values<T>(state, name + ".first", shape);
      second = detail::kept_values<T>(state, name + ".second", shape);
    }
  };

  Index steps_ = 0;
  BasicTensor<T> projector_;
  Moments direction_, magnitude_;
};

/// GradNormLoRP: y = x Wᵀ + b, W = g ⊙ v / ‖v‖ row by row; the direction is moved by Adam in a
/// low-rank space of its gradient.
///
/// v: [out, in], first the frozen weight, g: [out, 1], its row norms; trained: in out + out, with
/// 2 r max(in, out) + 2 out moments. With D = ∂L/∂W: ∂g_o = D_o · v̂_o and ∂v_o = g_o / ‖v_o‖ (D_o −
/// (D_o · v̂_o) v̂_o), or without the second term. The identity at the start; merges. The procedure
/// moves v and g itself. Source: Huang et al. 2024 (arXiv:2412.19616), algorithm 1. The released
/// code sets g to ‖v‖ before every step, which undoes its update; here g is kept. Tensors:
/// weight_v, weight_g.
template <std::floating_point T>
class BasicGradNormLoRP {
 public:
  using Scalar = T;
  using Config = GradNormLoRPConfig;

  BasicGradNormLoRP(const GradNormLoRPConfig& config, const LinearSiteInfo<T>& site,
                    InitContext<T>& context)
      : exact_((config.validate(), config.exact_gradient)) {
    const Index out = site.out_features, in = site.in_features;
    if (config.rank > std::min(out, in))
      throw ValueError(concat("GradNormLoRP: r ", config.rank, " of ", site.path,
                              ", expected at most ", std::min(out, in)));
    v_ = BasicParameter<T>(context.loading ? BasicTensor<T>::zeros({out, in})
                                           : site.weight().clone());
    BasicTape<T> tape({.gradients = false});
    g_ = BasicParameter<T>(row_norms(tape.constant(v_.value())).value().clone());
  }
  /// For a layer of one's own; nothing is drawn.
  template <Linear L>
  BasicGradNormLoRP(const GradNormLoRPConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicGradNormLoRP(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    return detail::effective_weight(base, x, [v = v_, g = g_, exact = exact_](BasicTape<T>& tape) {
      const auto direction = tape.parameter(v);
      auto norms = row_norms(direction);
      if (!exact) norms = norms.detach();
      return mul(direction, div(tape.parameter(g), norms));
    });
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(2);
    list[0].name = "weight_v";
    list[0].parameter = v_;
    list[1].name = "weight_g";
    list[1].parameter = g_;
    return list;
  }
  const BasicParameter<T>& direction() const { return v_; }
  const BasicParameter<T>& magnitude() const { return g_; }

 private:
  /// [out, 1]; a row of zeros has a tiny norm.
  static BasicVar<T> row_norms(const BasicVar<T>& v) {
    return sqrt(clamp(sum_axis(square(v), -1, true), std::numeric_limits<T>::min(),
                      std::numeric_limits<T>::max()));
  }

  bool exact_;
  BasicParameter<T> v_, g_;
};

/// Moves directions and magnitudes; nothing is left for the optimiser of the run.
template <std::floating_point T>
class GradNormLoRPProcedure final : public Procedure<T> {
 public:
  GradNormLoRPProcedure(const GradNormLoRPConfig& config, std::vector<BasicGradNormLoRP<T>*> parts)
      : config_(config), parts_(std::move(parts)), optimizers_(parts_.size()) {}
  void after_backward(const StepInfo& info) override {
    const double rate = info.learning_rate > 0 ? info.learning_rate : config_.learning_rate;
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      const auto &v = parts_[i]->direction(), &g = parts_[i]->magnitude();
      if (!v.grad() || !g.grad()) continue;
      optimizers_[i].step(config_, v.value(), g.value(), v.grad(), g.grad(), rate);
      v.zero_grad();
      g.zero_grad();
    }
  }
  std::map<std::string, std::vector<double>> state() const override {
    detail::ProcedureState all;
    for (std::size_t i = 0; i < optimizers_.size(); ++i)
      optimizers_[i].keep(all, std::to_string(i));
    return all;
  }
  void set_state(const std::map<std::string, std::vector<double>>& all) override {
    for (std::size_t i = 0; i < optimizers_.size(); ++i)
      optimizers_[i].restore(all, std::to_string(i), config_.rank, parts_[i]->direction().shape());
  }

 private:
  GradNormLoRPConfig config_;
  std::vector<BasicGradNormLoRP<T>*> parts_;
  std::vector<GradNormOptimizer<T>> optimizers_;
};

template <std::floating_point T>
struct GradNormLoRPMethod {
  using Scalar = T;
  using Config = GradNormLoRPConfig;
  static MethodInfo info() {
    return {.peft_type = "GRADNORMLORP",
            .name = "GradNormLoRP",
            .family = "low_rank",
            .paper = "arXiv:2412.19616",
            .sites = "linear",
            .parameters = "in out + out",
            .in_peft = false};
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    return linear_part(BasicGradNormLoRP<T>(config, site, context));
  }
  static std::unique_ptr<Procedure<T>> procedure(const Config& config,
                                                 const std::vector<PlacedPart<T>>& parts) {
    std::vector<BasicGradNormLoRP<T>*> list;
    for (const auto& placed : parts)
      if (auto* part = method_of<BasicGradNormLoRP<T>>(placed.part.get())) list.push_back(part);
    return std::make_unique<GradNormLoRPProcedure<T>>(config, std::move(list));
  }
};

using GradNormLoRP = BasicGradNormLoRP<float>;

}  // namespace graft::inline v0_1
