#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/bottleneck/bottleneck.hpp"

namespace graft::inline v0_1 {

/// Configuration of SparseAdapter.
struct SparseAdapterConfig {
  Index adapter_dim = 64;
  std::string non_linearity = "swish";
  double sparsity = 0.4;                 ///< share of the elements of all D and U that goes
  std::string score = "snip";            ///< random, magnitude, snip, grasp, synflow
  Index rounds = 1;                      ///< the share grows to `sparsity` in so many steps
  std::string schedule = "exponential";  ///< of the share that stays, or linear
  std::vector<std::string> placement = {"attention", "feed_forward"};
  TargetModules target_modules = {};  ///< linear layers instead, each with an adapter behind it
  Selection select = {};

  static constexpr const char* kPeftType = "SPARSE_ADAPTER";

  template <class Visitor>
  void fields(Visitor& v) {
    v("adapter_dim", adapter_dim);
    v("non_linearity", non_linearity);
    v("sparsity", sparsity);
    v("score", score);
    v("rounds", rounds);
    optional_field(v, "schedule", schedule, std::string("exponential"));
    v("placement", placement);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for a width or number of rounds below one, a sparsity outside of [0, 1), an
  /// unknown activation, score, schedule or place.
  void validate() const {
    if (adapter_dim < 1 || rounds < 1)
      throw ValueError(concat("SparseAdapter: adapter_dim ", adapter_dim, ", rounds ", rounds,
                              ", expected at least 1"));
    if (!(sparsity >= 0 && sparsity < 1))
      throw ValueError(concat("SparseAdapter: sparsity ", sparsity, ", expected [0, 1)"));
    static constexpr const char* kScores[] = {"random", "magnitude", "snip", "grasp", "synflow"};
    if (std::find(std::begin(kScores), std::end(kScores), score) == std::end(kScores))
      throw ValueError(concat("SparseAdapter: score '", score,
                              "', expected random, magnitude, snip, grasp or synflow"));
    if (schedule != "exponential" && schedule != "linear")
      throw ValueError(
          concat("SparseAdapter: schedule '", schedule, "', expected exponential or linear"));
    detail::require_activation("SparseAdapter", non_linearity);
    detail::require_placement("SparseAdapter", placement);
  }
  /// The share that is gone after round e of 0 … rounds − 1: 1 − (1 − sparsity)^((e + 1) / rounds),
  /// or with the linear schedule sparsity (e + 1) / rounds.
  double sparsity_after(Index round) const {
    const double part = static_cast<double>(round + 1) / static_cast<double>(rounds);
    return schedule == "linear" ? sparsity * part : 1 - std::pow(1 - sparsity, part);
  }
};

/// A(h) = φ(h (M_D ⊙ D)ᵀ + b_D) (M_U ⊙ U)ᵀ + b_U with masks of zeros and ones.
template <std::floating_point T>
class BasicSparseBottleneck {
 public:
  using Scalar = T;

  BasicSparseBottleneck(Index width, const SparseAdapterConfig& config, InitContext<T>& context)
      : activation_(config.non_linearity),
        down_(detail::TrainedAffine<T>::normal(config.adapter_dim, width, 0.02, context)),
        up_(detail::TrainedAffine<T>::normal(width, config.adapter_dim, 0.02, context)) {}

  BasicVar<T> operator()(const BasicVar<T>& h) const {
    const auto map = [&](const BasicVar<T>& x, const detail::TrainedAffine<T>& affine,
                         const BasicTensor<T>& mask) {
      auto& tape = x.tape();
      auto w = tape.parameter(affine.weight);
      if (mask) w = mul(w, tape.constant(mask));
      return add(matmul(x, w, Transpose::no, Transpose::yes), tape.parameter(affine.bias));
    };
    return map(detail::apply_activation(activation_, map(h, down_, down_mask_)), up_, up_mask_);
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    down_.list("adapter_down", list);
    up_.list("adapter_up", list);
    return list;
  }
  /// Elements that a file holds as zeros are those that were pruned.
  void after_load() {
    for (const bool down : {true, false}) {
      const auto& w = weight(down).value();
      if (std::find(w.begin(), w.end(), T{0}) == w.end()) continue;
      auto mask = BasicTensor<T>::empty(w.shape());
      std::transform(w.begin(), w.end(), mask.begin(), [](T v) { return v == 0 ? T{0} : T{1}; });
      set_mask(down, std::move(mask));
    }
  }
  std::string merge_reason() const {
    return detail::is_identity(activation_) ? "" : "a bottleneck with an activation is not linear";
  }

  /// D, or U.
  const BasicParameter<T>& weight(bool down) const { return down ? down_.weight : up_.weight; }
  /// Its mask; empty: all ones.
  const BasicTensor<T>& mask(bool down) const { return down ? down_mask_ : up_mask_; }
  /// Sets masked elements of D or U to zero for good.
  void set_mask(bool down, BasicTensor<T> mask) {
    BasicTensor<T> w = weight(down).value();
    for (Index i = 0; i < w.size(); ++i)
      if (mask[i] == 0) w[i] = 0;
    (down ? down_mask_ : up_mask_) = std::move(mask);
  }
  /// SynFlow: |w ⊙ ∂R/∂w| of D and U for R = Σ A(1), all weights, biases and masks taken in
  /// absolute value (Tanaka et al. 2020, eq. 1), for this adapter alone.
  std::pair<BasicTensor<T>, BasicTensor<T>> synflow() const {
    const auto absolute = [](const BasicTensor<T>& t, const BasicTensor<T>& mask) {
      auto a = t.clone();
      for (Index i = 0; i < a.size(); ++i) a[i] = std::abs(a[i]) * (mask ? mask[i] : T{1});
      return a;
    };
    BasicTape<T> tape({.training = false});
    const auto d = tape.leaf(absolute(down_.weight.value(), down_mask_)),
               u = tape.leaf(absolute(up_.weight.value(), up_mask_));
    const auto ones = tape.constant(BasicTensor<T>::ones({1, d.cols()}));
    const auto inner =
        detail::apply_activation(activation_, add(matmul(ones, d, Transpose::no, Transpose::yes),
                                                  tape.constant(absolute(down_.bias.value(), {}))));
    tape.backward(sum(add(matmul(inner, u, Transpose::no, Transpose::yes),
                          tape.constant(absolute(up_.bias.value(), {})))));
    const auto score = [](const BasicVar<T>& w) {
      auto s = w.grad().clone();
      for (Index i = 0; i < s.size(); ++i) s[i] = std::abs(s[i] * w.value()[i]);
      return s;
    };
    return {score(d), score(u)};
  }

 private:
  std::string activation_;
  detail::TrainedAffine<T> down_, up_;
  BasicTensor<T> down_mask_, up_mask_;
};

/// Masks over several arrays of scores: of all elements together, the ⌊share · n⌋ with the smallest
/// scores (and their equals at the bound) go; those that are masked already count among them.
template <std::floating_point T>
std::vector<BasicTensor<T>> prune_together(const std::vector<BasicTensor<T>>& scores,
                                           const std::vector<BasicTensor<T>>& masks, double share) {
  std::vector<T> all;
  for (std::size_t k = 0; k < scores.size(); ++k)
    for (Index i = 0; i < scores[k].size(); ++i)
      all.push_back(masks[k] && masks[k][i] == 0 ? -std::numeric_limits<T>::infinity()
                                                 : scores[k][i]);
  const auto gone =
      static_cast<std::ptrdiff_t>(std::floor(share * static_cast<double>(all.size()) + 1e-9));
  T bound = -std::numeric_limits<T>::infinity();
  auto sorted = all;
  if (gone > 0) {
    std::nth_element(sorted.begin(), sorted.begin() + gone - 1, sorted.end());
    bound = sorted[static_cast<std::size_t>(gone - 1)];
  }
  std::vector<BasicTensor<T>> result;
  std::size_t at = 0;
  for (const auto& s : scores) {
    auto mask = BasicTensor<T>::empty(s.shape());
    for (T& m : mask) m = gone == 0 || all[at++] > bound ? T{1} : T{0};
    result.push_back(std::move(mask));
  }
  return result;
}

/// GraSP: w ⊙ (H g), signed, H the Hessian of the loss and g its gradient (Wang et al. 2020, eq.
/// 8), H g by the central difference of the gradient along g. `gradients()` gives the gradient of
/// every parameter at their present values; they come back with the bits that they had.
template <std::floating_point T, class Gradients>
std::vector<BasicTensor<T>> grasp_scores(const std::vector<BasicParameter<T>>& parameters,
                                         Gradients&& gradients) {
  std::vector<BasicTensor<T>> before, result;
  T weights = 0, slopes = 0;
  const std::vector<BasicTensor<T>> g = gradients();
  for (std::size_t k = 0; k < parameters.size(); ++k) {
    before.push_back(parameters[k].value().clone());
    for (const T v : before[k]) weights = std::max(weights, std::abs(v));
    for (const T v : g[k]) slopes = std::max(slopes, std::abs(v));
  }
  if (slopes == 0) {
    for (const auto& w : before) result.push_back(BasicTensor<T>::zeros(w.shape()));
    return result;
  }
  // The step that balances truncation and rounding.
  const T step = std::cbrt(std::numeric_limits<T>::epsilon()) * std::max(weights, T{1}) / slopes;
  const auto at = [&](T distance) {
    for (std::size_t k = 0; k < parameters.size(); ++k) {
      auto moved = before[k].clone();
      for (Index i = 0; i < moved.size(); ++i) moved[i] += distance * g[k][i];
      parameters[k].assign(std::move(moved));
    }
    return gradients();
  };
  const std::vector<BasicTensor<T>> ahead = at(step), behind = at(-step);
  for (std::size_t k = 0; k < parameters.size(); ++k) {
    parameters[k].assign(before[k]);
    auto score = BasicTensor<T>::empty(before[k].shape());
    for (Index i = 0; i < score.size(); ++i)
      score[i] = before[k][i] * (ahead[k][i] - behind[k][i]) / (2 * step);
    result.push_back(std::move(score));
  }
  return result;
}

/// Prunes the adapters of a model by scores of D and U in turn, adapter after adapter.
template <std::floating_point T>
void prune_adapters(const std::vector<BasicSparseBottleneck<T>*>& adapters,
                    const std::vector<BasicTensor<T>>& scores, double share) {
  std::vector<BasicTensor<T>> masks;
  for (const auto* adapter : adapters)
    for (const bool down : {true, false}) masks.push_back(adapter->mask(down));
  auto pruned = prune_together(scores, masks, share);
  std::size_t k = 0;
  for (auto* adapter : adapters)
    for (const bool down : {true, false}) adapter->set_mask(down, std::move(pruned[k++]));
}

/// SNIP: the first `rounds` steps only score, |w ⊙ ∂L/∂w| of the masked adapters, and prune. With
/// GraSP, refuses to train what was not pruned.
template <std::floating_point T>
class SparseAdapterProcedure : public Procedure<T> {
 public:
  SparseAdapterProcedure(const SparseAdapterConfig& config,
                         std::vector<BasicSparseBottleneck<T>*> adapters)
      : config_(config), adapters_(std::move(adapters)) {}
  void before_step(const StepInfo&) override {
    if (config_.score != "grasp") return;
    for (const auto* adapter : adapters_)
      if (adapter->mask(true) || adapter->mask(false)) return;
    throw ValueError(
        "SparseAdapter: a training run has no second derivatives for the score grasp; prune with "
        "grasp_scores and prune_adapters first, or take another score");
  }
  void after_backward(const StepInfo& info) override {
    if (config_.score != "snip" || info.step > config_.rounds) return;
    std::vector<BasicTensor<T>> scores;
    for (const auto* adapter : adapters_)
      for (const bool down : {true, false}) {
        const auto& w = adapter->weight(down);
        auto s = BasicTensor<T>::zeros(w.shape());
        if (w.grad())
          for (Index i = 0; i < s.size(); ++i) s[i] = std::abs(w.value()[i] * w.grad()[i]);
        scores.push_back(std::move(s));
      }
    prune_adapters(adapters_, scores, config_.sparsity_after(info.step - 1));
    for (const auto* adapter : adapters_)
      for (const auto& t : adapter->tensors()) t.parameter.zero_grad();
  }

 private:
  SparseAdapterConfig config_;
  std::vector<BasicSparseBottleneck<T>*> adapters_;
};

/// SparseAdapter: Houlsby adapters h ← h + A(h) whose matrices are pruned before training: of all
/// elements of all D and U, scored by chance, |w|, SNIP |w ∂L/∂w|, GraSP w ⊙ (H g) or SynFlow, the
/// ⌊sparsity · n⌋ with the smallest scores become zero for good.
///
/// D: [r, d], U: [d, r]; trained a site: (1 − sparsity) 2 d r + r + d (masked elements are in the
/// tensors and get no gradient). Near the identity at the start (N(0, 0.02) on both sides, biases
/// 0). Merges as a Houlsby adapter does, with the identity as φ behind a linear layer. Source: He
/// et al. 2022 (arXiv:2210.04284), section 3. Random, magnitude and SynFlow prune when the adapter
/// is made, SNIP in the first `rounds` steps, which do not train. GraSP needs the loss as a
/// function: `grasp_scores` and `prune_adapters`; a training run refuses it. Elements that a file
/// holds as zeros are masked. Tensors: adapter_down.{weight, bias}, adapter_up.{weight, bias}.
template <std::floating_point T>
struct SparseAdapterMethod {
  using Scalar = T;
  using Config = SparseAdapterConfig;
  static constexpr bool kByRole = true;
  static MethodInfo info() {
    return {.peft_type = "SPARSE_ADAPTER",
            .name = "SparseAdapter",
            .family = "bottleneck",
            .paper = "arXiv:2210.04284",
            .sites = "hidden, linear",
            .parameters = "2 d r + r + d, r = adapter_dim; masked elements stay zero",
            .mergeable = false,
            .in_peft = false,
            .identity_at_init = false};
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    if (config.target_modules.empty()) return nullptr;
    return linear_part(SerialAdapter<BasicSparseBottleneck<T>>(
        BasicSparseBottleneck<T>(site.out_features, config, context)));
  }
  static std::shared_ptr<HiddenPart<T>> hidden(const Config& config, const HiddenSiteInfo<T>& site,
                                               InitContext<T>& context) {
    if (!config.target_modules.empty() || !detail::placed_at(config.placement, site.role))
      return nullptr;
    return hidden_part(SerialAdapter<BasicSparseBottleneck<T>>(
        BasicSparseBottleneck<T>(site.width, config, context)));
  }
  /// The adapters of an adapter's parts, in their order.
  static std::vector<BasicSparseBottleneck<T>*> modules(const std::vector<PlacedPart<T>>& parts) {
    std::vector<BasicSparseBottleneck<T>*> list;
    for (auto* adapter : methods_of<SerialAdapter<BasicSparseBottleneck<T>>>(parts))
      list.push_back(&adapter->module());
    return list;
  }
  static std::unique_ptr<Procedure<T>> procedure(const Config& config,
                                                 const std::vector<PlacedPart<T>>& parts) {
    if (config.score != "snip" && config.score != "grasp") return nullptr;
    return std::make_unique<SparseAdapterProcedure<T>>(config, modules(parts));
  }
  template <class Set>
  static void finish(const Config& config, Set& set, BasicSiteTable<T>&, InitContext<T>& context) {
    if (context.loading || config.score == "snip" || config.score == "grasp") return;
    const auto adapters = modules(set.parts());
    for (Index round = 0; round < config.rounds; ++round) {
      std::vector<BasicTensor<T>> scores;
      for (const auto* adapter : adapters) {
        if (config.score == "synflow") {
          auto [down, up] = adapter->synflow();
          scores.push_back(std::move(down));
          scores.push_back(std::move(up));
          continue;
        }
        for (const bool down : {true, false}) {
          auto s = adapter->weight(down).value().clone();
          if (config.score == "random")
            context.generator.uniform(s.data(), s.size(), 0, 1);
          else
            std::transform(s.begin(), s.end(), s.begin(), [](T v) { return std::abs(v); });
          scores.push_back(std::move(s));
        }
      }
      prune_adapters(adapters, scores, config.sparsity_after(round));
    }
  }
};

}  // namespace graft::inline v0_1
