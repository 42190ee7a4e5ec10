#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/effective_weight.hpp"
#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"
#include "graft/autograd/ops/straight_through.hpp"

namespace graft::inline v0_1 {

/// Configuration of PST.
struct PSTConfig {
  Index weight_rank = 8, mask_rank = 8;
  double weight_beta = 1, mask_alpha1 = 1, mask_alpha2 = 1;
  double initial_sparsity = 0, final_sparsity = 0.9;
  double initial_warmup = 0.1, final_warmup = 0.3;  ///< shares of all steps
  double sparsity = 0;                              ///< the current one
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "PST";

  template <class Visitor>
  void fields(Visitor& v) {
    v("weight_rank", weight_rank);
    v("mask_rank", mask_rank);
    v("weight_beta", weight_beta);
    v("mask_alpha1", mask_alpha1);
    v("mask_alpha2", mask_alpha2);
    v("initial_sparsity", initial_sparsity);
    v("final_sparsity", final_sparsity);
    v("initial_warmup", initial_warmup);
    v("final_warmup", final_warmup);
    v("sparsity", sparsity);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for a rank below one or a sparsity outside of [0, 1].
  void validate() const {
    if (weight_rank < 1 || mask_rank < 1)
      throw ValueError(concat("PST: ranks ", weight_rank, " and ", mask_rank));
    for (const double s : {sparsity, initial_sparsity, final_sparsity})
      if (!(s >= 0 && s <= 1)) throw ValueError(concat("PST: sparsity ", s, ", expected [0, 1]"));
  }
  /// Sparsity of step t of T: s_i for t ≤ t_i, s_f for t > T − t_f, else s_f + (s_i − s_f) (1 − (t
  /// − t_i) / (T − t_i − t_f))³, with t_i and t_f the warm-ups of T steps.
  double sparsity_at(double step, double total) const {
    const double first = initial_warmup * total, last = final_warmup * total;
    if (step <= first) return initial_sparsity;
    if (step > total - last) return final_sparsity;
    const double rest = 1 - (step - first) / (total - first - last);
    return final_sparsity + (initial_sparsity - final_sparsity) * rest * rest * rest;
  }
};

/// PST: y = x (M ⊙ W')ᵀ + b, W' = W + β U V, M zero at the ⌊sparsity · size⌋ smallest scores
///   S = |W'| + α₁ A B + α₂ (r 1ᵀ + 1 cᵀ).
///
/// U: [out, r1], V: [r1, in], A: [out, r2], B: [r2, in], r: [out], c: [in]; trained: (r1 + r2) (out
/// + in) + out + in. Gradient of S: that of M; |W'| counts for U and V too. The identity at the
/// start (V = B = r = c = 0, sparsity 0); merges. Weights are built for each use, not kept. Source:
/// Li et al. 2022 (arXiv:2205.11005), eq. 5 to 8. Tensors: weight_U, weight_V, mask_scores_A,
/// mask_scores_B, mask_scores_R, mask_scores_C.
template <std::floating_point T>
class BasicPST {
 public:
  using Scalar = T;
  using Config = PSTConfig;

  BasicPST(const PSTConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : beta_(static_cast<T>(config.weight_beta)),
        alpha1_(static_cast<T>(config.mask_alpha1)),
        alpha2_(static_cast<T>(config.mask_alpha2)),
        sparsity_(std::make_shared<double>(config.sparsity)) {
    config.validate();
    const Index out = site.out_features, in = site.in_features;
    const auto draw = [&](Index rank) {
      return context.loading ? BasicTensor<T>::zeros({out, rank})
                             : detail::normal_tensor<T>(context.generator, {out, rank}, 1);
    };
    const auto zeros = [](const Shape& shape) {
      return BasicParameter<T>(BasicTensor<T>::zeros(shape));
    };
    u_ = BasicParameter<T>(draw(config.weight_rank));
    v_ = zeros({config.weight_rank, in});
    a_ = BasicParameter<T>(draw(config.mask_rank));
    b_ = zeros({config.mask_rank, in});
    r_ = zeros({out});
    c_ = zeros({in});
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicPST(const PSTConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicPST(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    return detail::effective_weight(
        base, x,
        [u = u_, v = v_, a = a_, b = b_, r = r_, c = c_, beta = beta_, alpha1 = alpha1_,
         alpha2 = alpha2_, sparsity = *sparsity_,
         root = &detail::root_of(base)](BasicTape<T>& tape) {
          const auto w = add(tape.constant(weight_of(*root)),
                             scale(matmul(tape.parameter(u), tape.parameter(v)), beta));
          const auto pruned =
              static_cast<Index>(std::floor(sparsity * static_cast<double>(w.value().size())));
          const auto structure = add(reshape(tape.parameter(r), {r.size(), 1}), tape.parameter(c));
          const auto scores =
              add(add(abs(w), scale(matmul(tape.parameter(a), tape.parameter(b)), alpha1)),
                  scale(structure, alpha2));
          return mul(straight_through_without_smallest(scores, pruned), w);
        });
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(6);
    const std::pair<const char*, BasicParameter<T>> named[] = {
        {"weight_U", u_},      {"weight_V", v_},      {"mask_scores_A", a_},
        {"mask_scores_B", b_}, {"mask_scores_R", r_}, {"mask_scores_C", c_}};
    for (std::size_t i = 0; i < list.size(); ++i) {
      list[i].name = named[i].first;
      list[i].parameter = named[i].second;
    }
    return list;
  }
  void set_sparsity(double sparsity) { *sparsity_ = sparsity; }

 private:
  T beta_, alpha1_, alpha2_;
  std::shared_ptr<double> sparsity_;
  BasicParameter<T> u_, v_, a_, b_, r_, c_;
};

/// Raises the sparsity by the cubic schedule and writes it into the configuration.
template <std::floating_point T>
class PSTProcedure final : public Procedure<T> {
 public:
  PSTProcedure(const PSTConfig& config, std::vector<BasicPST<T>*> parts)
      : config_(config), parts_(std::move(parts)) {}
  void before_step(const StepInfo& info) override {
    config_.sparsity =
        config_.sparsity_at(static_cast<double>(info.step), static_cast<double>(info.total_steps));
    for (auto* part : parts_) part->set_sparsity(config_.sparsity);
  }
  void update_config(ConfigValue::Map& map) const override { map["sparsity"] = config_.sparsity; }

 private:
  PSTConfig config_;
  std::vector<BasicPST<T>*> parts_;
};

template <std::floating_point T>
struct PSTMethod {
  using Scalar = T;
  using Config = PSTConfig;
  static MethodInfo info() {
    return {.peft_type = "PST",
            .name = "PST",
            .family = "selection",
            .paper = "arXiv:2205.11005",
            .sites = "linear, conv",
            .parameters = "(r1 + r2) (in + out) + in + out, r1 = weight_rank, r2 = mask_rank",
            .in_peft = false,
            .exact_gradient = false};
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    return linear_part(BasicPST<T>(config, site, context));
  }
  static std::unique_ptr<Procedure<T>> procedure(const Config& config,
                                                 const std::vector<PlacedPart<T>>& parts) {
    std::vector<BasicPST<T>*> list;
    for (const auto& placed : parts)
      if (auto* part = method_of<BasicPST<T>>(placed.part.get())) list.push_back(part);
    return std::make_unique<PSTProcedure<T>>(config, std::move(list));
  }
};

using PST = BasicPST<float>;

}  // namespace graft::inline v0_1
