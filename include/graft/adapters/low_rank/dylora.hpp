#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/procedure_state.hpp"
#include "graft/base/splitmix.hpp"

namespace graft::inline v0_1 {

/// Configuration of DyLoRA. The procedure is the optimiser of the factors
/// (AdamW); learning rates are those of the training run.
struct DyLoRAConfig {
  Index rank = 8;  ///< the largest
  Index r_min = 1;
  double alpha = 16;
  double dropout = 0;
  std::string mode = "truncate";  ///< truncate: all rows in use learn; frozen:
                                  ///< the last block alone
  std::string scale = "current";  ///< alpha · block_size / rank in use, or fixed: alpha / r
  Index block_size = 1;
  Index eval_rank = 0;  ///< outside of training; 0: r
  double weight_decay = 0;
  Index seed = 0;                        ///< of the ranks that are drawn
  std::string distribution = "uniform";  ///< of these ranks, or geometric
  double geometric_p = 0.15;             ///< P(b + 1) / P(b) = 1 − p, block by block
  bool per_layer = false;                ///< a rank for each layer in place of one for all
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "DYLORA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("r_min", r_min);
    v("lora_alpha", alpha);
    v("lora_dropout", dropout);
    v("mode", mode);
    v("scale", scale);
    v("block_size", block_size);
    optional_field(v, "eval_rank", eval_rank, Index{0});
    optional_field(v, "weight_decay", weight_decay, 0.0);
    optional_field(v, "seed", seed, Index{0});
    optional_field(v, "distribution", distribution, std::string("uniform"));
    optional_field(v, "geometric_p", geometric_p, 0.15);
    optional_field(v, "per_layer", per_layer, false);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for ranks that do not fit or unknown words.
  void validate() const {
    if (r_min < 1 || r_min > rank || block_size < 1 || rank % block_size != 0 || eval_rank < 0 ||
        eval_rank > rank)
      throw ValueError(concat("DyLoRA: r ", rank, ", r_min ", r_min, ", block_size ", block_size,
                              ", eval_rank ", eval_rank,
                              ", expected 1 ≤ r_min ≤ r, a block that divides r, a rank up to r"));
    if (mode != "truncate" && mode != "frozen")
      throw ValueError(concat("DyLoRA: mode '", mode, "', expected truncate or frozen"));
    if (scale != "current" && scale != "fixed")
      throw ValueError(concat("DyLoRA: scale '", scale, "', expected current or fixed"));
    if (distribution != "uniform" && distribution != "geometric")
      throw ValueError(
          concat("DyLoRA: distribution '", distribution, "', expected uniform or geometric"));
    if (!(geometric_p > 0 && geometric_p < 1))
      throw ValueError(concat("DyLoRA: geometric_p ", geometric_p, ", expected between 0 and 1"));
  }
  double scaling(Index in_use) const {
    return scale == "fixed" ? alpha / static_cast<double>(rank)
                            : alpha * static_cast<double>(block_size) / static_cast<double>(in_use);
  }
  /// First row that learns at a rank.
  Index first_learning(Index in_use) const {
    return mode == "frozen" ? (in_use - 1) / block_size * block_size : 0;
  }
  /// Rank of a step from r_min to r in whole blocks, of one layer where each has its own.
  Index draw(Index step, Index layer = 0) const {
    const Index first = (r_min + block_size - 1) / block_size, last = rank / block_size,
                count = last - first + 1;
    auto z = splitmix64(static_cast<std::uint64_t>(seed) * 0x9e3779b97f4a7c15ULL +
                        static_cast<std::uint64_t>(step) * kSplitMixStep);
    if (layer > 0) z = splitmix64(z + static_cast<std::uint64_t>(layer) * kSplitMixStep);
    if (distribution == "uniform")
      return (first + static_cast<Index>(z % static_cast<std::uint64_t>(count))) * block_size;
    // The inverse of the distribution function of a geometric distribution that is cut off.
    const double u = static_cast<double>(z >> 11) * 0x1p-53, stays = 1 - geometric_p;
    const double whole = 1 - std::pow(stays, static_cast<double>(count));
    const auto j = static_cast<Index>(std::floor(std::log1p(-u * whole) / std::log(stays)));
    return (first + std::min(j, count - 1)) * block_size;
  }
};

/// AdamW on rows (or columns) of a matrix, each with its own count of steps:
/// one that does not learn is left alone, decay included.
template <std::floating_point T>
class RowAdamW {
 public:
  void keep(detail::ProcedureState& state, const std::string& name) const {
    detail::keep_values(state, name + ".m1", m1_);
    detail::keep_values(state, name + ".m2", m2_);
    if (m1_) state[name + ".steps"].assign(steps_.begin(), steps_.end());
  }
  void restore(const detail::ProcedureState& state, const std::string& name, const Shape& shape) {
    m1_ = detail::kept_values<T>(state, name + ".m1", shape);
    m2_ = detail::kept_values<T>(state, name + ".m2", shape);
    steps_.clear();
    if (!m1_ || !m2_) return;
    const auto& steps = state.at(name + ".steps");
    steps_.assign(steps.begin(), steps.end());
  }
  void step(const BasicTensor<T>& value, const BasicTensor<T>& gradient, bool rows, Index first,
            Index last, double rate, double decay) {
    const Index count = rows ? value.rows() : value.cols();
    if (!m1_) {
      m1_ = BasicTensor<T>::zeros(value.shape());
      m2_ = BasicTensor<T>::zeros(value.shape());
      steps_.assign(static_cast<std::size_t>(count), 0);
    }
    constexpr double b1 = 0.9, b2 = 0.999, eps = 1e-8;
    const Index cols = value.cols(), other = value.size() / std::max<Index>(1, count);
    T* v = value.data();
    for (Index k = first; k < last; ++k) {
      const double t = static_cast<double>(++steps_[static_cast<std::size_t>(k)]);
      for (Index j = 0; j < other; ++j) {
        const Index i = rows ? k * cols + j : j * cols + k;
        const double g = gradient[i];
        const double m = b1 * m1_[i] + (1 - b1) * g, s = b2 * m2_[i] + (1 - b2) * g * g;
        m1_[i] = static_cast<T>(m);
        m2_[i] = static_cast<T>(s);
        v[i] = static_cast<T>(v[i] * (1 - rate * decay) -
                              rate * (m / (1 - std::pow(b1, t))) /
                                  (std::sqrt(s / (1 - std::pow(b2, t))) + eps));
      }
    }
  }

 private:
  BasicTensor<T> m1_, m2_;
  std::vector<Index> steps_;
};

/// DyLoRA: y = base(x) + s_b · (drop(x) A[:b]ᵀ) B[:, :b]ᵀ at a rank b ≤ r that
/// every step draws, so that each leading rank works on its own.
///
/// A: [r, in] ~ U(±1/√in), B: [out, r], zero; trained: r (in + out), of which a
/// step moves the rows and columns below b, or the last block alone (frozen).
/// The identity at the start; merges at the rank in use. Source: Valipour et
/// al. 2023 (arXiv:2210.07558), algorithm 1; scale alpha / b is that of its
/// code. The p of the geometric distribution is a choice of this library's.
/// Tensors: lora_A.weight, lora_B.weight.
template <std::floating_point T>
class BasicDyLoRA {
 public:
  using Scalar = T;
  using Config = DyLoRAConfig;

  BasicDyLoRA(const DyLoRAConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : config_(config), in_use_(std::make_shared<Index>(0)) {
    config.validate();
    *in_use_ = config.eval_rank > 0 ? config.eval_rank : config.rank;
    const Index r = config.rank, in = site.in_features;
    a_ = BasicParameter<T>(detail::kaiming_uniform_tensor<T>(context, {r, in}, in));
    b_ = BasicParameter<T>(BasicTensor<T>::zeros({site.out_features, r}));
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicDyLoRA(const DyLoRAConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicDyLoRA(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const Index rank = *in_use_, first = config_.first_learning(rank);
    const auto part = [&](const BasicParameter<T>& parameter, int axis) {
      const auto whole = tape.parameter(parameter);
      const auto learning = slice(whole, axis, first, rank - first);
      if (first == 0) return learning;
      const auto still = slice(tape.constant(parameter.value()), axis, 0, first);
      return concat_along(axis, std::vector<BasicVar<T>>{still, learning});
    };
    return linear_low_rank(base, x, graft::dropout(x, config_.dropout), part(a_, 0), part(b_, 1),
                           static_cast<T>(config_.scaling(rank)));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(2);
    list[0].name = "lora_A.weight";
    list[0].parameter = a_;
    list[1].name = "lora_B.weight";
    list[1].parameter = b_;
    return list;
  }
  /// @throws ValueError for a rank outside of 1 to r.
  void set_rank(Index rank) const {
    if (rank < 1 || rank > config_.rank)
      throw ValueError(concat("DyLoRA: rank ", rank, ", expected 1 to ", config_.rank));
    *in_use_ = rank;
  }
  /// The rank in use.
  Index rank() const { return *in_use_; }
  const BasicParameter<T>& a() const { return a_; }
  const BasicParameter<T>& b() const { return b_; }

 private:
  DyLoRAConfig config_;
  std::shared_ptr<Index> in_use_;
  BasicParameter<T> a_, b_;
};

/// Draws a rank for every step, moves what learns, and goes back to the rank of
/// evaluation.
template <std::floating_point T>
class DyLoRAProcedure final : public Procedure<T> {
 public:
  DyLoRAProcedure(const DyLoRAConfig& config, std::vector<BasicDyLoRA<T>*> parts)
      : config_(config), parts_(std::move(parts)), adam_(2 * parts_.size()) {}
  void before_step(const StepInfo& info) override {
    for (std::size_t i = 0; i < parts_.size(); ++i)
      parts_[i]->set_rank(config_.draw(info.step, config_.per_layer ? static_cast<Index>(i) : 0));
  }
  void after_backward(const StepInfo& info) override {
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      const Index rank = parts_[i]->rank();
      for (const bool rows : {true, false}) {
        const auto& parameter = rows ? parts_[i]->a() : parts_[i]->b();
        if (!parameter.grad()) continue;
        adam_[2 * i + (rows ? 0 : 1)].step(parameter.value(), parameter.grad(), rows,
                                           config_.first_learning(rank), rank, info.learning_rate,
                                           config_.weight_decay);
        // Nothing is left for the optimiser of the run.
        parameter.zero_grad();
      }
    }
    for (auto* part : parts_)
      part->set_rank(config_.eval_rank > 0 ? config_.eval_rank : config_.rank);
  }
  std::map<std::string, std::vector<double>> state() const override {
    detail::ProcedureState all;
    for (std::size_t i = 0; i < adam_.size(); ++i) adam_[i].keep(all, std::to_string(i));
    return all;
  }
  void set_state(const std::map<std::string, std::vector<double>>& all) override {
    for (std::size_t i = 0; i < adam_.size(); ++i) {
      const auto& part = *parts_[i / 2];
      adam_[i].restore(all, std::to_string(i), (i % 2 == 0 ? part.a() : part.b()).shape());
    }
  }

 private:
  DyLoRAConfig config_;
  std::vector<BasicDyLoRA<T>*> parts_;
  std::vector<RowAdamW<T>> adam_;
};

template <std::floating_point T>
struct DyLoRAMethod {
  using Scalar = T;
  using Config = DyLoRAConfig;
  static MethodInfo info() {
    return {.peft_type = "DYLORA",
            .name = "DyLoRA",
            .family = "low_rank",
            .paper = "arXiv:2210.07558",
            .sites = "linear",
            .parameters = "r (in + out)",
            .in_peft = false};
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    return linear_part(BasicDyLoRA<T>(config, site, context));
  }
  static std::unique_ptr<Procedure<T>> procedure(const Config& config,
                                                 const std::vector<PlacedPart<T>>& parts) {
    return std::make_unique<DyLoRAProcedure<T>>(config, methods_of<BasicDyLoRA<T>>(parts));
  }
};

using DyLoRA = BasicDyLoRA<float>;

}  // namespace graft::inline v0_1
