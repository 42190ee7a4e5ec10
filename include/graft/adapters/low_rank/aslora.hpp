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

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/low_rank/own_adamw.hpp"
#include "graft/adapters/low_rank/shared_type.hpp"
#include "graft/adapters/method.hpp"

namespace graft::inline v0_1 {

/// Configuration of ASLoRA. The procedure moves B with AdamW at the run's rate.
struct ASLoRAConfig {
  Index rank = 8;
  double alpha = 16;
  double dropout = 0;
  std::optional<Index> merge_start = {};     ///< nothing: a tenth of the steps
  std::optional<Index> merge_interval = {};  ///< nothing: so that the last one is at 60 %
  std::optional<Index> target_groups = {};   ///< of a type; nothing: a quarter of its layers
  std::string pairs = "adjacent";            ///< groups that may merge: adjacent or any
  double weight_decay = 0;                   ///< of B
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "ASLORA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("lora_alpha", alpha);
    v("lora_dropout", dropout);
    v("merge_start", merge_start);
    v("merge_interval", merge_interval);
    v("target_groups", target_groups);
    v("pairs", pairs);
    optional_field(v, "weight_decay", weight_decay, 0.0);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for settings out of range or an unknown word.
  void validate() const {
    if (rank < 1) throw ValueError(concat("ASLoRA: r ", rank, ", expected at least 1"));
    if (merge_interval.value_or(1) < 1 || target_groups.value_or(1) < 1)
      throw ValueError("ASLoRA: merge_interval or target_groups below 1");
    if (pairs != "adjacent" && pairs != "any")
      throw ValueError(concat("ASLoRA: pairs '", pairs, "', expected adjacent or any"));
  }
  Index groups_at_the_end(Index layers) const {
    return target_groups.value_or(std::max<Index>(1, layers / 4));
  }
  /// True if groups merge after step t (from 1) of T, as long as there are more than in the end.
  bool merges_after(Index t, Index total, Index layers) const {
    const Index start = merge_start.value_or(std::max<Index>(1, total / 10));
    const Index merges = std::max<Index>(1, layers - groups_at_the_end(layers));
    const Index interval =
        merge_interval.value_or(std::max<Index>(1, (total * 6 / 10 - start) / merges));
    return t >= start && (t - start) % interval == 0;
  }
};

/// The layers of one type: their A, the B of each group of them, and the groups.
template <std::floating_point T>
class ASLoRAType {
 public:
  /// Every layer a group of its own.
  ASLoRAType(BasicTensor<T> a, Index out, Index layers)
      : a_(std::move(a)), group_(std::make_shared<IndexTensor>()) {
    group_->shape = {layers};
    for (Index k = 0; k < layers; ++k) {
      group_->values.push_back(k);
      b_.emplace_back(BasicTensor<T>::zeros({out, a_.shape()[0]}));
    }
    moments_.resize(b_.size());
  }
  const BasicParameter<T>& a() const { return a_; }
  const std::vector<BasicParameter<T>>& b() const { return b_; }
  const std::shared_ptr<IndexTensor>& group_of_layer() const { return group_; }
  const std::vector<detail::OwnAdamW<T>>& moments() const { return moments_; }
  Index layers() const { return group_->shape[0]; }
  Index groups() const { return static_cast<Index>(b_.size()); }

  /// As many groups as a file holds; layers are put into them afterwards.
  void resize(Index groups) {
    const Shape shape = b_.front().shape();
    b_.clear();
    for (Index g = 0; g < groups; ++g) b_.emplace_back(BasicTensor<T>::zeros(shape));
    moments_.assign(b_.size(), {});
  }
  /// One step of AdamW on every group that has a gradient.
  void step(double rate, double decay) {
    for (std::size_t g = 0; g < b_.size(); ++g)
      if (b_[g].grad()) moments_[g].step(b_[g], rate, decay);
  }
  /// The two groups that differ least: ‖B_a − B_b‖ / (½ (‖B_a‖ + ‖B_b‖) + 10⁻¹²), neighbours or
  /// any; of equal pairs the first.
  std::pair<Index, Index> closest(bool adjacent) const {
    std::pair<Index, Index> best{0, 1};
    double least = std::numeric_limits<double>::infinity();
    for (Index i = 0; i < groups(); ++i)
      for (Index j = i + 1; j < (adjacent ? std::min(i + 2, groups()) : groups()); ++j)
        if (const double d = distance(i, j); d < least) {
          least = d;
          best = {i, j};
        }
    return best;
  }
  double distance(Index i, Index j) const {
    const auto &x = b_[static_cast<std::size_t>(i)].value(),
               &y = b_[static_cast<std::size_t>(j)].value();
    double difference = 0, xx = 0, yy = 0;
    for (Index k = 0; k < x.size(); ++k) {
      const double u = x[k], v = y[k];
      difference += (u - v) * (u - v);
      xx += u * u;
      yy += v * v;
    }
    return std::sqrt(difference) / (0.5 * (std::sqrt(xx) + std::sqrt(yy)) + 1e-12);
  }
  /// Group j joins group i < j: B and its moments are the means over their layers; later groups
  /// move down.
  void merge(Index i, Index j) {
    const auto size = [&](Index g) {
      return static_cast<double>(
          std::count(group_->values.begin(), group_->values.end(), std::int64_t{g}));
    };
    const double ni = size(i), nj = size(j);
    const auto at = static_cast<std::size_t>(i), from = static_cast<std::size_t>(j);
    const auto mix = [&](const BasicTensor<T>& x, const BasicTensor<T>& y) {
      if (!x || !y) return;
      for (Index k = 0; k < x.size(); ++k)
        x[k] = static_cast<T>((ni * x[k] + nj * y[k]) / (ni + nj));
    };
    mix(b_[at].value(), b_[from].value());
    mix(moments_[at].first, moments_[from].first);
    mix(moments_[at].second, moments_[from].second);
    b_.erase(b_.begin() + j);
    moments_.erase(moments_.begin() + j);
    for (auto& g : group_->values) g = g == j ? i : g > j ? g - 1 : g;
  }
  void keep(detail::ProcedureState& state, const std::string& name) const {
    for (std::size_t g = 0; g < moments_.size(); ++g) moments_[g].keep(state, concat(name, ".", g));
  }
  void restore(const detail::ProcedureState& state, const std::string& name) {
    for (std::size_t g = 0; g < moments_.size(); ++g)
      moments_[g].restore(state, concat(name, ".", g), b_[g].shape());
  }

 private:
  BasicParameter<T> a_;
  std::vector<BasicParameter<T>> b_;
  std::vector<detail::OwnAdamW<T>> moments_;
  std::shared_ptr<IndexTensor> group_;
};

/// ASLoRA: y = base(x) + s · (drop(x) Aᵀ) B_gᵀ, s = alpha / r: one A for all layers of a type, and
/// a B for each group of them; groups with similar B merge while a run goes on.
///
/// A: [r, in] ~ U(±1/√in), B_g: [out, r], zero; trained for a type: r in + groups · r out, at first
/// a group for each layer. The identity at the start; merges. Source: Hu et al. 2024
/// (arXiv:2412.10135). Schedule and distance (see ASLoRAType) are chosen here and
/// not compared with the paper's. Tensors: shared.TYPE.lora_A.weight, shared.TYPE.lora_B.g.weight,
/// shared.TYPE.group_of_layer.
template <std::floating_point T>
class BasicASLoRA {
 public:
  using Scalar = T;
  using Config = ASLoRAConfig;

  /// @throws ValueError for layers of one type with different shapes.
  BasicASLoRA(const ASLoRAConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : type_((config.validate(), site.name())),
        scaling_(static_cast<T>(config.alpha / static_cast<double>(config.rank))),
        dropout_(config.dropout) {
    const auto [number, count] = detail::place_in_type(site);
    const Index r = config.rank, in = site.in_features, out = site.out_features;
    number_ = static_cast<std::size_t>(number);
    shared_ = context.shared.object("aslora." + type_, [&, layers = count] {
      auto a = detail::kaiming_uniform_tensor<T>(context, {r, in}, in);
      return ASLoRAType<T>(std::move(a), out, layers);
    });
    if (shared_->a().shape() != Shape{r, in} || shared_->b().front().shape() != Shape{out, r})
      throw ValueError(concat("ASLoRA: ", site.path, " [", out, ", ", in,
                              "] has another shape than others called ", type_,
                              "; target_modules takes names of layers of one shape"));
  }

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto group = static_cast<std::size_t>(shared_->group_of_layer()->values[number_]);
    return linear_low_rank(base, x, graft::dropout(x, dropout_), tape.parameter(shared_->a()),
                           tape.parameter(shared_->b()[group]), scaling_);
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    list.push_back(detail::type_tensor(type_, "lora_A.weight", shared_->a()));
    for (std::size_t g = 0; g < shared_->b().size(); ++g)
      list.push_back(detail::type_tensor(type_, concat("lora_B.", g, ".weight"), shared_->b()[g]));
    list.push_back(detail::type_tensor(type_, "group_of_layer", BasicParameter<T>()));
    list.back().index = shared_->group_of_layer();
    return list;
  }
  void before_load(const CheckpointShapes& shapes) {
    Index groups = 0;
    while (shapes(concat("model.shared.", type_, ".lora_B.", groups, ".weight")) != nullptr)
      ++groups;
    if (groups > 0 && groups != shared_->groups()) shared_->resize(groups);
  }
  /// @throws ValueError for a layer in a group that there is not.
  void after_load() {
    for (const auto g : shared_->group_of_layer()->values)
      if (g < 0 || g >= shared_->groups())
        throw ValueError(
            concat("group_of_layer of ", type_, ": group ", g, " of ", shared_->groups()));
  }
  const std::string& type() const { return type_; }
  const std::shared_ptr<ASLoRAType<T>>& shared() const { return shared_; }

 private:
  std::string type_;
  T scaling_;
  double dropout_;
  std::size_t number_ = 0;
  std::shared_ptr<ASLoRAType<T>> shared_;
};

/// Moves every B and merges groups; nothing of B is left for the optimiser of the run.
template <std::floating_point T>
class ASLoRAProcedure final : public Procedure<T> {
 public:
  ASLoRAProcedure(const ASLoRAConfig& config,
                  std::map<std::string, std::shared_ptr<ASLoRAType<T>>> types)
      : config_(config), types_(std::move(types)) {}
  void after_backward(const StepInfo& info) override {
    for (auto& [name, type] : types_) type->step(info.learning_rate, config_.weight_decay);
  }
  void after_step(const StepInfo& info) override {
    for (auto& [name, type] : types_) {
      if (type->groups() <= config_.groups_at_the_end(type->layers()) ||
          !config_.merges_after(info.step, info.total_steps, type->layers()))
        continue;
      const auto [i, j] = type->closest(config_.pairs == "adjacent");
      type->merge(i, j);
    }
  }
  std::map<std::string, std::vector<double>> state() const override {
    detail::ProcedureState all;
    for (const auto& [name, type] : types_) type->keep(all, name);
    return all;
  }
  void set_state(const std::map<std::string, std::vector<double>>& all) override {
    for (auto& [name, type] : types_) type->restore(all, name);
  }

 private:
  ASLoRAConfig config_;
  std::map<std::string, std::shared_ptr<ASLoRAType<T>>> types_;
};

template <std::floating_point T>
struct ASLoRAMethod {
  using Scalar = T;
  using Config = ASLoRAConfig;
  static MethodInfo info() {
    return {.peft_type = "ASLORA",
            .name = "ASLoRA",
            .family = "low_rank",
            .paper = "arXiv:2412.10135",
            .sites = "linear",
            .parameters = "; r out a layer and r in a kind, less when groups merge",
            .in_peft = false};
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    return linear_part(BasicASLoRA<T>(config, site, context));
  }
  static std::unique_ptr<Procedure<T>> procedure(const Config& config,
                                                 const std::vector<PlacedPart<T>>& parts) {
    std::map<std::string, std::shared_ptr<ASLoRAType<T>>> types;
    for (const auto& placed : parts)
      if (auto* part = method_of<BasicASLoRA<T>>(placed.part.get()))
        types.emplace(part->type(), part->shared());
    return std::make_unique<ASLoRAProcedure<T>>(config, std::move(types));
  }
};

using ASLoRA = BasicASLoRA<float>;

}  // namespace graft::inline v0_1
