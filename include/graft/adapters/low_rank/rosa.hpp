#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/procedure_state.hpp"
#include "graft/autograd/ops/observe_linear.hpp"
#include "graft/autograd/ops/sparse_matmul.hpp"

namespace graft::inline v0_1 {

/// Configuration of RoSA.
struct RoSAConfig {
  Index rank = 8;  ///< 0: no low-rank part
  double alpha = 8;
  double dropout = 0;                          ///< of the low-rank part
  double density = 0.003;                      ///< share of the elements in the sparse part
  Index spa_num_grads = 1;                     ///< batches whose gradients choose them
  std::string grad_acc_mode = "mean_squared";  ///< or mean
  std::string schedule = "default";            ///< default, wlN, spa_only, lora_only
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "ROSA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("lora_alpha", alpha);
    v("lora_dropout", dropout);
    v("d", density);
    v("spa_num_grads", spa_num_grads);
    v("grad_acc_mode", grad_acc_mode);
    v("schedule", schedule);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for numbers out of range or unknown words.
  void validate() const {
    if (rank < 0) throw ValueError(concat("RoSA: r ", rank, ", expected at least 0"));
    if (!(density >= 0 && density <= 1))
      throw ValueError(concat("RoSA: d ", density, ", expected [0, 1]"));
    if (spa_num_grads < 1) throw ValueError(concat("RoSA: spa_num_grads ", spa_num_grads));
    if (grad_acc_mode != "mean_squared" && grad_acc_mode != "mean")
      throw ValueError(
          concat("RoSA: grad_acc_mode '", grad_acc_mode, "', expected mean_squared or mean"));
    warm_up();
  }
  bool low_rank() const { return schedule != "spa_only"; }
  bool sparse() const { return schedule != "lora_only"; }
  /// Steps before gradients are collected.
  Index warm_up() const {
    if (schedule == "default" || schedule == "spa_only" || schedule == "lora_only") return 0;
    const bool number = schedule.size() > 2 && schedule.size() < 12 && schedule.starts_with("wl") &&
                        std::all_of(schedule.begin() + 2, schedule.end(),
                                    [](char c) { return c >= '0' && c <= '9'; });
    if (!number)
      throw ValueError(concat("RoSA: schedule '", schedule,
                              "', expected default, wl and a number, spa_only or lora_only"));
    return std::stol(schedule.substr(2));
  }
  /// Steps count from 0.
  bool collects(Index step) const {
    return sparse() && step >= warm_up() && step < warm_up() + spa_num_grads;
  }
  bool has_sparse(Index step) const { return sparse() && step >= warm_up() + spa_num_grads; }
};

/// Compressed rows of the ⌊d · size⌋ places with the largest scores.
struct SparseRows {
  std::vector<std::int64_t> offsets, columns;
};
template <std::floating_point T>
SparseRows rosa_mask(const BasicTensor<T>& collected, double density) {
  const Index rows = collected.rows(), cols = collected.cols(), size = rows * cols,
              k = static_cast<Index>(std::floor(density * static_cast<double>(size)));
  std::vector<Index> order(static_cast<std::size_t>(size));
  std::iota(order.begin(), order.end(), Index{0});
  std::partial_sort(order.begin(), order.begin() + k, order.end(), [&](Index a, Index b) {
    const T sa = std::abs(collected[a]), sb = std::abs(collected[b]);
    return sa > sb || (sa == sb && a < b);
  });
  std::sort(order.begin(), order.begin() + k);
  SparseRows result;
  result.offsets.assign(static_cast<std::size_t>(rows + 1), 0);
  for (Index i = 0; i < k; ++i) {
    const Index place = order[static_cast<std::size_t>(i)];
    result.columns.push_back(place % cols);
    ++result.offsets[static_cast<std::size_t>(place / cols + 1)];
  }
  std::partial_sum(result.offsets.begin(), result.offsets.end(), result.offsets.begin());
  return result;
}

/// Mean over batches of the gradients of a weight, or of their squares.
template <std::floating_point T>
class RoSACollector {
 public:
  RoSACollector(Index out, Index in, bool squares)
      : sum_(BasicTensor<T>::zeros({out, in})), squares_(squares) {}
  void see(const BasicTensor<T>& x, const BasicTensor<T>& dy) {
    auto g = BasicTensor<T>::empty(sum_.shape());
    kernels::gemm(true, false, dy.cols(), x.cols(), x.rows(), T{1}, dy.data(), dy.cols(), x.data(),
                  x.cols(), T{0}, g.data(), x.cols());
    for (Index i = 0; i < g.size(); ++i) sum_[i] += squares_ ? g[i] * g[i] : g[i];
    ++count_;
  }
  BasicTensor<T> mean() const {
    auto m = sum_.clone();
    for (T& v : m) v /= static_cast<T>(std::max<Index>(1, count_));
    return m;
  }
  void keep(detail::ProcedureState& state, const std::string& name) const {
    detail::keep_values(state, name + ".sum", sum_);
    state[name + ".count"] = {static_cast<double>(count_)};
  }
  void restore(const detail::ProcedureState& state, const std::string& name) {
    sum_ = detail::kept_values<T>(state, name + ".sum", sum_.shape());
    count_ = static_cast<Index>(detail::kept_number(state, name + ".count", 0));
  }

 private:
  BasicTensor<T> sum_;
  bool squares_;
  Index count_ = 0;
};

/// RoSA: y = base(x) + s · (drop(x) Aᵀ) Bᵀ + x Sᵀ, S sparse, s = alpha / r.
///
/// A: [r, in] ~ U(±1/√in), B: [out, r], zero; S: ⌊d in out⌋ values, zero, at
/// the largest gradients of some batches; trained: r (in + out) + ⌊d in out⌋.
/// Before its places are chosen there is no S. The identity at the start;
/// merges. S is never written out. Source: Nikdan et al. 2024
/// (arXiv:2401.04679), sections 3.2 and 4.1. Tensors: rosa_A.weight,
/// rosa_B.weight, rosa_spa.values, rosa_spa.row_offs, rosa_spa.col_idx.
template <std::floating_point T>
class BasicRoSA {
 public:
  using Scalar = T;
  using Config = RoSAConfig;

  BasicRoSA(const RoSAConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : path_(site.path),
        out_(site.out_features),
        in_(site.in_features),
        sparse_((config.validate(), config.sparse())),
        scaling_(config.rank > 0 ? static_cast<T>(config.alpha / static_cast<double>(config.rank))
                                 : T{1}),
        dropout_(config.dropout),
        values_(BasicTensor<T>::zeros({0})),
        offsets_(std::make_shared<IndexTensor>()),
        columns_(std::make_shared<IndexTensor>()) {
    if (site.conv.groups > 1)
      throw ValueError(concat("RoSA: the grouped convolution ", path_, " is not supported"));
    const Index r = config.low_rank() ? config.rank : 0;
    if (r > 0) {
      a_ = BasicParameter<T>(detail::kaiming_uniform_tensor<T>(context, {r, in_}, in_));
      b_ = BasicParameter<T>(BasicTensor<T>::zeros({out_, r}));
    }
    offsets_->type = columns_->type = IndexTensor::Type::i32;
    choose({std::vector<std::int64_t>(static_cast<std::size_t>(out_ + 1), 0), {}});
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicRoSA(const RoSAConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicRoSA(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    auto y = a_ ? linear_low_rank(base, x, graft::dropout(x, dropout_), tape.parameter(a_),
                                  tape.parameter(b_), scaling_)
                : linear(base, x);
    if (values_.size() > 0) y = add_sparse_matmul(y, x, tape.parameter(values_), pattern_);
    if (!collector_) return y;
    return observe_linear<T>(y, x,
                             [c = collector_](const auto& in, const auto& dy) { c->see(in, dy); });
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    const auto put = [&](const char* name) -> AdapterTensor<T>& {
      list.emplace_back();
      list.back().name = name;
      return list.back();
    };
    if (a_) {
      put("rosa_A.weight").parameter = a_;
      put("rosa_B.weight").parameter = b_;
    }
    if (sparse_) {
      put("rosa_spa.values").parameter = values_;
      put("rosa_spa.row_offs").index = offsets_;
      put("rosa_spa.col_idx").index = columns_;
    }
    return list;
  }
  void before_load(const CheckpointShapes& shapes) {
    const Shape* shape = shapes("rosa_spa.values");
    if (shape == nullptr || shape->rank() != 1) return;
    values_.assign(BasicTensor<T>::zeros(*shape));
    columns_->shape = *shape;
    columns_->values.assign(static_cast<std::size_t>(shape->elements()), 0);
  }
  /// @throws ValueError for rows that are no compressed rows of the weight.
  void after_load() {
    auto pattern = std::make_shared<SparsePattern>();
    pattern->rows = out_;
    pattern->cols = in_;
    const auto& offsets = offsets_->values;
    const auto& columns = columns_->values;
    bool good = static_cast<Index>(offsets.size()) == out_ + 1 && offsets.front() == 0 &&
                offsets.back() == static_cast<Index>(columns.size()) &&
                std::is_sorted(offsets.begin(), offsets.end());
    for (const auto c : columns) good = good && c >= 0 && c < in_;
    if (!good)
      throw ValueError(
          concat("rosa_spa of ", path_, ": no compressed rows of [", out_, ", ", in_, "]"));
    for (Index o = 0; o < out_; ++o)
      for (auto i = offsets[static_cast<std::size_t>(o)];
           i < offsets[static_cast<std::size_t>(o + 1)]; ++i) {
        pattern->row.push_back(static_cast<std::int32_t>(o));
        pattern->col.push_back(static_cast<std::int32_t>(columns[static_cast<std::size_t>(i)]));
      }
    pattern_ = std::move(pattern);
  }
  void collect(bool squares) {
    collector_ = std::make_shared<RoSACollector<T>>(out_, in_, squares);
  }
  bool collecting() const { return collector_ != nullptr; }
  void keep(detail::ProcedureState& state, const std::string& name) const {
    if (collector_) collector_->keep(state, name);
  }
  void restore(const detail::ProcedureState& state, const std::string& name, bool squares) {
    collector_.reset();
    if (!state.contains(name + ".sum")) return;
    collect(squares);
    collector_->restore(state, name);
  }
  bool has_places() const { return values_.size() > 0; }
  /// Chooses the places by what was collected.
  void finish_collecting(double density) {
    choose(rosa_mask(collector_->mean(), density));
    collector_.reset();
  }

 private:
  void choose(SparseRows rows) {
    values_.assign(BasicTensor<T>::zeros({static_cast<Index>(rows.columns.size())}));
    columns_->shape = values_.shape();
    columns_->values = std::move(rows.columns);
    offsets_->shape = {out_ + 1};
    offsets_->values = std::move(rows.offsets);
    after_load();
  }

  std::string path_;
  Index out_, in_;
  bool sparse_;
  T scaling_;
  double dropout_;
  BasicParameter<T> a_, b_, values_;
  std::shared_ptr<IndexTensor> offsets_, columns_;
  std::shared_ptr<const SparsePattern> pattern_;
  std::shared_ptr<RoSACollector<T>> collector_;
};

/// RoSA's schedule: LoRA alone, gradients that choose the places, both
/// together.
template <std::floating_point T>
class RoSAProcedure final : public Procedure<T> {
 public:
  RoSAProcedure(const RoSAConfig& config, std::vector<BasicRoSA<T>*> parts)
      : config_(config), parts_(std::move(parts)) {}
  void before_step(const StepInfo& info) override {
    if (!config_.collects(info.step - 1)) return;
    for (auto* part : parts_)
      if (!part->collecting() && !part->has_places())
        part->collect(config_.grad_acc_mode == "mean_squared");
  }
  void after_backward(const StepInfo& info) override {
    if (!config_.has_sparse(info.step)) return;
    for (auto* part : parts_)
      if (part->collecting()) part->finish_collecting(config_.density);
  }
  std::map<std::string, std::vector<double>> state() const override {
    detail::ProcedureState all;
    for (std::size_t i = 0; i < parts_.size(); ++i) parts_[i]->keep(all, std::to_string(i));
    return all;
  }
  void set_state(const std::map<std::string, std::vector<double>>& all) override {
    for (std::size_t i = 0; i < parts_.size(); ++i)
      parts_[i]->restore(all, std::to_string(i), config_.grad_acc_mode == "mean_squared");
  }

 private:
  RoSAConfig config_;
  std::vector<BasicRoSA<T>*> parts_;
};

template <std::floating_point T>
struct RoSAMethod {
  using Scalar = T;
  using Config = RoSAConfig;
  static MethodInfo info() {
    return {.peft_type = "ROSA",
            .name = "RoSA",
            .family = "low_rank",
            .paper = "arXiv:2401.04679",
            .sites = "linear",
            .parameters = "r (in + out); + floor(d in out) when their places are chosen",
            .in_peft = false};
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    return linear_part(BasicRoSA<T>(config, site, context));
  }
  static std::unique_ptr<Procedure<T>> procedure(const Config& config,
                                                 const std::vector<PlacedPart<T>>& parts) {
    return std::make_unique<RoSAProcedure<T>>(config, methods_of<BasicRoSA<T>>(parts));
  }
};

using RoSA = BasicRoSA<float>;

}  // namespace graft::inline v0_1
