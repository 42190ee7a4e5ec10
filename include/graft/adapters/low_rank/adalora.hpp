#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/adapted.hpp"
#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"

namespace graft::inline v0_1 {

/// Configuration of AdaLoRA, fields as PEFT's AdaLoraConfig (`r` is ignored there and here).
struct AdaLoRAConfig {
  Index init_rank = 12;     ///< init_r, before anything is pruned
  Index target_rank = 8;    ///< target_r, mean over the adapted layers at the end
  double alpha = 8;         ///< scaling = alpha / init_r for ever; init_r / init_r if not positive
  double dropout = 0;       ///< on the input of the branch, while training
  Index warmup_steps = 0;   ///< tinit: steps without pruning at the start
  Index final_steps = 0;    ///< tfinal: steps with a fixed choice at the end
  Index mask_interval = 1;  ///< deltaT
  double beta1 = 0.85;      ///< of the moving average of the importance
  double beta2 = 0.85;      ///< of its uncertainty
  double orthogonality_weight = 0.5;      ///< orth_reg_weight
  std::optional<Index> total_steps = {};  ///< total_step; nothing: those of the run
  std::string final_phase = "pattern";    ///< or "mask_every_step", as the authors' code
  bool squared_regulariser = false;  ///< ‖·‖² as the paper writes it; not a field of PEFT's
  bool init_lora_weights = true;     ///< false: all factors N(0, 1)
  bool fan_in_fan_out = false;
  bool use_dora = false;  ///< refused, as by PEFT
  std::string bias = "none";
  TargetModules target_modules = {};
  Selection select = {};  ///< rank_pattern holds the kept triplets of a layer

  static constexpr const char* kPeftType = "ADALORA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("init_r", init_rank);
    v("target_r", target_rank);
    v("lora_alpha", alpha);
    v("lora_dropout", dropout);
    v("tinit", warmup_steps);
    v("tfinal", final_steps);
    v("deltaT", mask_interval);
    v("beta1", beta1);
    v("beta2", beta2);
    v("orth_reg_weight", orthogonality_weight);
    v("total_step", total_steps);
    optional_field(v, "final_phase", final_phase, std::string("pattern"));
    optional_field(v, "squared_regulariser", squared_regulariser, false);
    v("init_lora_weights", init_lora_weights);
    v("fan_in_fan_out", fan_in_fan_out);
    v("use_dora", use_dora);
    v("bias", bias);
    v("target_modules", target_modules);
    select.fields(v);
    // No effect, as in PEFT, whose class inherits the field from LoRA's.
    if constexpr (std::is_same_v<Visitor, ConfigReader>) select.alpha_pattern.clear();
  }
  /// @throws ValueError for sizes, weights or phases that cannot be.
  void validate() const {
    if (init_rank < 1)
      throw ValueError(concat("AdaLoRA: init_r ", init_rank, ", expected at least 1"));
    if (target_rank < 0)
      throw ValueError(concat("AdaLoRA: target_r ", target_rank, ", expected at least 0"));
    if (use_dora) throw ValueError("AdaLoRA: use_dora cannot be combined with it");
    if (mask_interval < 1)
      throw ValueError(concat("AdaLoRA: deltaT ", mask_interval, ", expected at least 1"));
    if (!(beta1 > 0 && beta1 < 1 && beta2 > 0 && beta2 < 1))
      throw ValueError(
          concat("AdaLoRA: beta1 ", beta1, " and beta2 ", beta2, ", expected between 0 and 1"));
    if (!(orthogonality_weight >= 0))
      throw ValueError(
          concat("AdaLoRA: orth_reg_weight ", orthogonality_weight, ", expected at least 0"));
    if (final_phase != "pattern" && final_phase != "mask_every_step")
      throw ValueError(
          concat("AdaLoRA: final_phase '", final_phase, "', expected pattern or mask_every_step"));
    if (total_steps) check_steps(*total_steps);
  }
  void check_steps(Index total) const {
    if (total < 1) throw ValueError(concat("AdaLoRA: total_step ", total, ", expected at least 1"));
    if (warmup_steps >= total - final_steps)
      throw ValueError(concat("AdaLoRA: tinit ", warmup_steps,
                              " leaves no step for pruning before ", "the last ", final_steps,
                              " of ", total));
  }
};

namespace detail {

/// ‖P‖_F or its square, with no slope at zero.
template <std::floating_point T>
BasicVar<T> frobenius(const BasicVar<T>& p, bool squared) {
  const auto s = sum(square(p));
  if (squared) return s;
  constexpr T tiny = std::numeric_limits<T>::min();
  return sqrt(clamp(s, tiny, std::numeric_limits<T>::max()));
}
/// ‖A Aᵀ − I‖_F + ‖Bᵀ B − I‖_F, or of their squares; A: [r, in], B: [out, r].
template <std::floating_point T>
BasicVar<T> orthogonality(const BasicVar<T>& a, const BasicVar<T>& b, bool squared) {
  const auto identity = a.tape().constant(BasicTensor<T>::identity(a.rows()));
  const auto left = sub(matmul(b, b, Transpose::yes, Transpose::no), identity);
  const auto right = sub(matmul(a, a, Transpose::no, Transpose::yes), identity);
  return add(frobenius(right, squared), frobenius(left, squared));
}

}  // namespace detail

/// AdaLoRA: y = base(x) + c · (drop(x) (A ⊙ E)ᵀ) Bᵀ, c = alpha / (r₀ + 10⁻⁵).
///
/// A: [r, in], E: [r, 1], B: [out, r]; trained: r (in + out + 1); r is r₀ = init_r, less in a
/// reduced checkpoint, where c stays as it was. The identity at the start (E = 0); merges. Loss:
/// orth_reg_weight · mean over all A and B of ‖A Aᵀ − I‖_F and ‖Bᵀ B − I‖_F. Source: Zhang et al.
/// 2023 (arXiv:2303.10512), eq. 3 and 4. Deviations: norms are not squared, as in the authors' and
/// PEFT's code. PEFT never lets c follow the rank; kept. PEFT's loss lacks the term where the
/// configuration has no task_type (it calls the model past the tuner); here it is always there.
/// alpha_pattern has no effect, as in PEFT. Tensors: lora_A, lora_E, lora_B.
template <std::floating_point T>
class BasicAdaLoRA {
 public:
  using Scalar = T;
  using Config = AdaLoRAConfig;

  BasicAdaLoRA(const AdaLoRAConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : dropout_(config.dropout),
        squared_(config.squared_regulariser),
        in_(site.in_features),
        out_(site.out_features) {
    config.validate();
    if (site.conv.groups > 1)
      throw ValueError(concat("AdaLoRA: the grouped convolution ", site.path, " is not supported"));
    const Index r = config.init_rank;
    const double alpha = config.alpha > 0 ? config.alpha : static_cast<double>(r);
    scaling_ = static_cast<T>(alpha / (static_cast<double>(r) + 1e-5));
    regulariser_ = config.orthogonality_weight /
                   static_cast<double>(2 * std::max<std::size_t>(1, site.all_sites.size()));
    BasicTensor<T> a, e, b;
    if (context.loading) {
      a = BasicTensor<T>::zeros({r, in_});
      e = BasicTensor<T>::zeros({r, 1});
      b = BasicTensor<T>::zeros({out_, r});
    } else {
      auto& rng = context.generator;
      a = detail::normal_tensor<T>(rng, {r, in_}, 1);
      e = detail::normal_tensor<T>(rng, {r, 1}, 1);
      b = detail::normal_tensor<T>(rng, {out_, r}, 1);
      rng.normal();  // PEFT draws a value for the rank and overwrites it
      if (config.init_lora_weights) {
        e.fill(0);
        a = detail::normal_tensor<T>(rng, {r, in_}, 0.02);
        b = detail::normal_tensor<T>(rng, {out_, r}, 0.02);
      }
    }
    a_ = BasicParameter<T>(a);
    e_ = BasicParameter<T>(e);
    b_ = BasicParameter<T>(b);
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicAdaLoRA(const AdaLoRAConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicAdaLoRA(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    if (rank() == 0) return linear(base, x);
    auto& tape = x.tape();
    return linear_low_rank(base, x, graft::dropout(x, dropout_),
                           mul(tape.parameter(a_), tape.parameter(e_)), tape.parameter(b_),
                           scaling_);
  }
  BasicVar<T> auxiliary_loss(BasicTape<T>& tape) const {
    if (rank() == 0 || regulariser_ == 0) return {};
    return scale(detail::orthogonality(tape.parameter(a_), tape.parameter(b_), squared_),
                 static_cast<T>(regulariser_));
  }
  std::vector<AdapterTensor<T>> tensors() const { return entries(a_, e_, b_); }
  /// The kept triplets alone, once the procedure chose.
  std::vector<AdapterTensor<T>> file_tensors() const {
    if (static_cast<Index>(kept_.size()) != rank()) return tensors();
    std::vector<Index> rows;
    for (Index k = 0; k < rank(); ++k)
      if (kept_[static_cast<std::size_t>(k)]) rows.push_back(k);
    const Index r = static_cast<Index>(rows.size());
    auto a = BasicTensor<T>::empty({r, in_}), e = BasicTensor<T>::empty({r, 1}),
         b = BasicTensor<T>::empty({out_, r});
    for (Index k = 0; k < r; ++k) {
      const Index from = rows[static_cast<std::size_t>(k)];
      std::copy_n(a_.value().data() + from * in_, in_, a.data() + k * in_);
      e[k] = e_.value()[from];
      for (Index o = 0; o < out_; ++o) b(o, k) = b_.value()(o, from);
    }
    return entries(BasicParameter<T>(a), BasicParameter<T>(e), BasicParameter<T>(b));
  }
  /// A reduced checkpoint decides the rank.
  void before_load(const CheckpointShapes& shapes) {
    const Shape* shape = shapes("lora_A");
    if (shape == nullptr || shape->rank() != 2 || (*shape)[0] == rank()) return;
    const Index r = (*shape)[0];
    a_.assign(BasicTensor<T>::zeros({r, in_}));
    e_.assign(BasicTensor<T>::zeros({r, 1}));
    b_.assign(BasicTensor<T>::zeros({out_, r}));
  }
  /// Drops the triplets with E_i = 0 for good; the output stays as it is.
  void prune() {
    kept_.assign(static_cast<std::size_t>(rank()), true);
    for (Index k = 0; k < rank(); ++k) kept_[static_cast<std::size_t>(k)] = e_.value()[k] != T{0};
    const auto list = file_tensors();
    a_.assign(list[0].parameter.value());
    b_.assign(list[1].parameter.value());
    e_.assign(list[2].parameter.value());
    kept_.clear();
  }

  Index rank() const { return a_.shape()[0]; }
  T scaling() const { return scaling_; }
  const BasicParameter<T>& a() const { return a_; }
  const BasicParameter<T>& e() const { return e_; }
  const BasicParameter<T>& b() const { return b_; }
  /// Which triplets the last masking kept; empty: none took place.
  const std::vector<bool>& kept() const { return kept_; }
  /// Sets E_i = 0 for every triplet that is not kept.
  void mask(std::vector<bool> kept) {
    kept_ = std::move(kept);
    for (Index k = 0; k < rank(); ++k)
      if (!kept_[static_cast<std::size_t>(k)]) e_.value()[k] = 0;
  }

 private:
  static std::vector<AdapterTensor<T>> entries(const BasicParameter<T>& a,
                                               const BasicParameter<T>& e,
                                               const BasicParameter<T>& b) {
    std::vector<AdapterTensor<T>> list(3);
    list[0].name = "lora_A";
    list[0].parameter = a;
    list[0].group = "lora_A";
    list[1].name = "lora_B";
    list[1].parameter = b;
    list[1].group = "lora_B";
    list[2].name = "lora_E";
    list[2].parameter = e;
    return list;
  }

  double dropout_;
  bool squared_;
  Index in_, out_;
  T scaling_ = 0;
  double regulariser_ = 0;
  std::vector<bool> kept_;
  BasicParameter<T> a_, e_, b_;
};

/// The budget of AdaLoRA: after every step of the optimiser, Ī ← β₁ Ī + (1 − β₁)|p g| and
/// Ū ← β₂ Ū + (1 − β₂)||p g| − Ī| for every element p with clipped gradient g; triplet i of a layer
/// scores s(E_i) + mean s(A_i) + mean s(B_i) with s = Ī Ū; all but the best R(t) of the model get
/// E_i = 0.
///
/// R(t) falls from Σ init_r to target_r a layer along a cubic (arXiv:2303.10512, eq. 6 to 9). The
/// last steps keep one choice. A masked E_i still learns and may come back before that.
template <std::floating_point T>
class AdaLoRAProcedure final : public Procedure<T> {
 public:
  AdaLoRAProcedure(const AdaLoRAConfig& config, const std::vector<PlacedPart<T>>& parts)
      : config_(config) {
    for (const auto& placed : parts)
      if (auto* method = method_of<BasicAdaLoRA<T>>(placed.part.get())) {
        layers_.push_back({placed.path, placed.part, method, {}});
        initial_ += method->rank();
      }
    target_ = config.target_rank * static_cast<Index>(layers_.size());
  }

  void after_step(const StepInfo& info) override {
    const Index total = config_.total_steps.value_or(info.total_steps);
    if (!checked_) {
      config_.check_steps(total);
      total_ = total;
      checked_ = true;
    }
    const Index last = total - config_.final_steps;
    if (info.step < last) update_scores(static_cast<T>(info.gradient_scale));
    const bool pattern = config_.final_phase == "pattern";
    if (pattern && info.step > last) {
      for (auto& layer : layers_)
        if (!layer.method->kept().empty()) layer.method->mask(layer.method->kept());
      return;
    }
    const Index budget = budget_at(info.step, total);
    const bool interval = info.step > config_.warmup_steps &&
                          (info.step > last || info.step % config_.mask_interval == 0);
    if (interval || (pattern && info.step == last)) mask_to(budget);
    if (pattern && info.step == last)
      for (auto& layer : layers_) layer.scores = {};
  }
  /// Triplets that step t may keep in the whole model.
  Index budget_at(Index step, Index total) const {
    if (step <= config_.warmup_steps) return initial_;
    if (step > total - config_.final_steps) return target_;
    const double share =
        1 - static_cast<double>(step - config_.warmup_steps) /
                static_cast<double>(total - config_.final_steps - config_.warmup_steps);
    return static_cast<Index>(static_cast<double>(initial_ - target_) * (share * share * share) +
                              static_cast<double>(target_));
  }

  void update_config(ConfigValue::Map& map) const override {
    if (total_ > 0) map["total_step"] = total_;
    ConfigValue::Map pattern;
    for (const auto& layer : layers_) {
      if (layer.method->kept().empty()) continue;
      ConfigValue::List list;
      for (bool keep : layer.method->kept()) list.emplace_back(keep);
      pattern[layer.path + ".lora_E"] = std::move(list);
    }
    if (!pattern.empty()) map["rank_pattern"] = std::move(pattern);
  }
  std::map<std::string, std::vector<double>> state() const override {
    std::map<std::string, std::vector<double>> all;
    for (const auto& layer : layers_) {
      const auto& kept = layer.method->kept();
      if (!kept.empty()) all[layer.path + ".kept"].assign(kept.begin(), kept.end());
      for (std::size_t i = 0; i < layer.scores.size(); ++i) {
        const auto& s = layer.scores[i];
        all[concat(layer.path, ".importance.", i)].assign(s.importance.begin(), s.importance.end());
        all[concat(layer.path, ".uncertainty.", i)].assign(s.uncertainty.begin(),
                                                           s.uncertainty.end());
      }
    }
    return all;
  }
  void set_state(const std::map<std::string, std::vector<double>>& all) override {
    for (auto& layer : layers_) {
      const auto find = [&](const std::string& key) -> const std::vector<double>* {
        const auto it = all.find(key);
        return it == all.end() ? nullptr : &it->second;
      };
      layer.scores = {};
      if (const auto* kept = find(layer.path + ".kept"))
        layer.method->mask(std::vector<bool>(kept->begin(), kept->end()));
      for (std::size_t i = 0; i < 3; ++i) {
        const auto* importance = find(concat(layer.path, ".importance.", i));
        const auto* uncertainty = find(concat(layer.path, ".uncertainty.", i));
        if (importance == nullptr || uncertainty == nullptr) continue;
        const Shape flat{static_cast<Index>(importance->size())};
        layer.scores.push_back(
            {BasicTensor<T>::from(*importance, flat), BasicTensor<T>::from(*uncertainty, flat)});
      }
    }
  }

 private:
  struct Scores {
    BasicTensor<T> importance, uncertainty;
  };
  struct Layer {
    std::string path;
    std::shared_ptr<AdapterPart<T>> part;
    BasicAdaLoRA<T>* method;
    std::vector<Scores> scores;  // of A, B and E
  };

  void update_scores(T scale) {
    const T b1 = static_cast<T>(config_.beta1), b2 = static_cast<T>(config_.beta2);
    for (auto& layer : layers_) {
      const BasicParameter<T> all[] = {layer.method->a(), layer.method->b(), layer.method->e()};
      if (layer.scores.empty())
        for (const auto& p : all)
          layer.scores.push_back(
              {BasicTensor<T>::zeros({p.size()}), BasicTensor<T>::zeros({p.size()})});
      for (std::size_t i = 0; i < 3; ++i) {
        const auto p = all[i].value(), g = all[i].grad();
        T* mean = layer.scores[i].importance.data();
        T* spread = layer.scores[i].uncertainty.data();
        for (Index j = 0; j < p.size(); ++j) {
          const T now = g ? std::abs(p[j] * (scale * g[j])) : T{0};
          mean[j] = b1 * mean[j] + (1 - b1) * now;
          spread[j] = b2 * spread[j] + (1 - b2) * std::abs(now - mean[j]);
        }
      }
    }
  }
  void mask_to(Index budget) {
    std::vector<double> all;
    std::vector<std::vector<double>> by_layer;
    for (const auto& layer : layers_) {
      const Index r = layer.method->rank(), in = layer.method->a().shape()[1],
                  out = layer.method->b().shape()[0];
      std::vector<double> scores(static_cast<std::size_t>(r), 0.0);
      if (!layer.scores.empty()) {
        const auto s = [&](std::size_t i, Index j) {
          return static_cast<double>(layer.scores[i].importance[j] *
                                     layer.scores[i].uncertainty[j]);
        };
        for (Index k = 0; k < r; ++k) {
          double a = 0, b = 0;
          for (Index j = 0; j < in; ++j) a += s(0, k * in + j);
          for (Index j = 0; j < out; ++j) b += s(1, j * r + k);
          scores[static_cast<std::size_t>(k)] =
              s(2, k) + a / static_cast<double>(in) + b / static_cast<double>(out);
        }
      }
      all.insert(all.end(), scores.begin(), scores.end());
      by_layer.push_back(std::move(scores));
    }
    const Index drop = static_cast<Index>(all.size()) - budget;
    double threshold = -1;
    if (drop > 0) {
      const auto nth = all.begin() + (drop - 1);
      std::nth_element(all.begin(), nth, all.end());
      threshold = *nth;
    }
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      std::vector<bool> kept(by_layer[i].size());
      for (std::size_t k = 0; k < kept.size(); ++k) kept[k] = by_layer[i][k] > threshold;
      layers_[i].method->mask(std::move(kept));
    }
  }

  AdaLoRAConfig config_;
  std::vector<Layer> layers_;
  Index initial_ = 0, target_ = 0, total_ = 0;
  bool checked_ = false;
};

/// AdaLoRA with its rank budget.
template <std::floating_point T>
struct AdaLoRAMethod {
  using Scalar = T;
  using Config = AdaLoRAConfig;
  static MethodInfo info() {
    return {.peft_type = "ADALORA",
            .name = "AdaLoRA",
            .family = "low_rank",
            .paper = "arXiv:2303.10512",
            .sites = "linear, conv",
            .parameters = "r (in + out + 1), r = init_r"};
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    return linear_part(BasicAdaLoRA<T>(config, site, context));
  }
  static std::unique_ptr<Procedure<T>> procedure(const Config& config,
                                                 const std::vector<PlacedPart<T>>& parts) {
    return std::make_unique<AdaLoRAProcedure<T>>(config, parts);
  }
};

using AdaLoRA = BasicAdaLoRA<float>;

}  // namespace graft::inline v0_1
