#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/effective_weight.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/procedure_state.hpp"
#include "graft/adapters/selection/scores.hpp"
#include "graft/autograd/ops/subnet_linear.hpp"

namespace graft::inline v0_1 {

/// Configuration of LoSiA. The procedure is the optimiser of the blocks; learning rates are those
/// of the training run.
struct LoSiAConfig {
  std::optional<double> rank_factor = 0.125;  ///< share of the rows and of the columns
  /// The share of the rows of an output layer, which trains all its columns; none: as the others.
  std::optional<double> output_factor = {};
  Index period = 50;    ///< steps between relocations
  double warmup = 0.1;  ///< share of a period in which the rate rises from 0 after a relocation
  bool keep_adam_steps = false;  ///< Adam's count of steps goes on after a relocation
  double importance_beta1 = 0.85, importance_beta2 = 0.85;
  std::vector<double> betas = {0.9, 0.999};
  double eps = 1e-6;
  double weight_decay = 0;
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "LOSIA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("rank_factor", rank_factor);
    optional_field(v, "output_factor", output_factor, std::optional<double>{});
    v("period", period);
    optional_field(v, "warmup", warmup, 0.1);
    optional_field(v, "keep_adam_steps", keep_adam_steps, false);
    v("importance_beta1", importance_beta1);
    v("importance_beta2", importance_beta2);
    v("betas", betas);
    v("eps", eps);
    v("weight_decay", weight_decay);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for a factor outside of (0, 1], a warm-up outside of [0, 1] or a period
  /// below one.
  void validate() const {
    if (rank_factor && !(*rank_factor > 0 && *rank_factor <= 1))
      throw ValueError(concat("LoSiA: rank_factor ", *rank_factor, ", expected (0, 1]"));
    if (output_factor && !(*output_factor > 0 && *output_factor <= 1))
      throw ValueError(concat("LoSiA: output_factor ", *output_factor, ", expected (0, 1]"));
    if (!(warmup >= 0 && warmup <= 1))
      throw ValueError(concat("LoSiA: warmup ", warmup, ", expected [0, 1]"));
    if (period < 1) throw ValueError(concat("LoSiA: period ", period));
    if (betas.size() != 2) throw ValueError("LoSiA: betas, expected two numbers");
  }
  /// Factor of the learning rate in the first, second, … step after a relocation.
  double restart_factor(Index step) const {
    return std::min(1.0, static_cast<double>(step) /
                             std::max(1.0, std::round(warmup * static_cast<double>(period))));
  }
};

namespace selection {

struct Subnet {
  Places rows, columns;  ///< sorted
};

/// The best block of `rows` × `columns` entries of a score by three greedy ways: rows and columns
/// by their sums, rows first, columns first. `totals`: the sums of the three candidates.
template <std::floating_point T>
Subnet localise(const BasicTensor<T>& score, Index rows, Index columns,
                std::vector<double>* totals = nullptr) {
  const Index out = score.rows(), in = score.cols();
  const auto all = [](Index n) {
    Places list(static_cast<std::size_t>(n));
    std::iota(list.begin(), list.end(), std::int64_t{0});
    return list;
  };
  const auto top = [](const std::vector<double>& sums, Index k) {
    auto chosen = best(static_cast<Index>(sums.size()), k,
                       [&](std::int64_t i) { return sums[static_cast<std::size_t>(i)]; });
    std::sort(chosen.begin(), chosen.end());
    return chosen;
  };
  const auto row_sums = [&](const Places& over) {
    std::vector<double> sums(static_cast<std::size_t>(out), 0);
    for (Index r = 0; r < out; ++r)
      for (const auto c : over) sums[static_cast<std::size_t>(r)] += score[r * in + c];
    return sums;
  };
  const auto column_sums = [&](const Places& over) {
    std::vector<double> sums(static_cast<std::size_t>(in), 0);
    for (const auto r : over)
      for (Index c = 0; c < in; ++c) sums[static_cast<std::size_t>(c)] += score[r * in + c];
    return sums;
  };
  const Places by_row = top(row_sums(all(in)), rows),
               by_column = top(column_sums(all(out)), columns);
  const Subnet candidates[] = {{by_row, by_column},
                               {by_row, top(column_sums(by_row), columns)},
                               {top(row_sums(by_column), rows), by_column}};
  std::size_t chosen = 0;
  std::vector<double> sums;
  for (const auto& candidate : candidates) {
    double sum = 0;
    for (const auto r : candidate.rows)
      for (const auto c : candidate.columns) sum += score[r * in + c];
    sums.push_back(sum);
    if (sum > sums[chosen]) chosen = sums.size() - 1;
  }
  if (totals != nullptr) *totals = sums;
  return candidates[chosen];
}

/// Importance of the entries of a weight: I = |W ⊙ g − ½ (W ⊙ g)²|, smoothed, times its smoothed
/// deviation.
template <std::floating_point T>
class Importance {
 public:
  Importance() = default;
  explicit Importance(const Shape& shape)
      : mean_(BasicTensor<T>::zeros(shape)), deviation_(BasicTensor<T>::zeros(shape)) {}
  void see(const BasicTensor<T>& weight, const BasicTensor<T>& gradient, double beta1,
           double beta2) {
    const T b1 = static_cast<T>(beta1), b2 = static_cast<T>(beta2);
    for (Index i = 0; i < mean_.size(); ++i) {
      const T p = weight[i] * gradient[i], importance = std::abs(p - p * p / 2);
      mean_[i] = b1 * mean_[i] + (1 - b1) * importance;
      deviation_[i] = b2 * deviation_[i] + (1 - b2) * std::abs(importance - mean_[i]);
    }
  }
  void keep(detail::ProcedureState& state, const std::string& name) const {
    detail::keep_values(state, name + ".mean", mean_);
    detail::keep_values(state, name + ".deviation", deviation_);
  }
  void restore(const detail::ProcedureState& state, const std::string& name) {
    mean_ = detail::kept_values<T>(state, name + ".mean", mean_.shape());
    deviation_ = detail::kept_values<T>(state, name + ".deviation", deviation_.shape());
  }
  BasicTensor<T> score() const {
    auto s = BasicTensor<T>::empty(mean_.shape());
    for (Index i = 0; i < s.size(); ++i) s[i] = mean_[i] * deviation_[i];
    return s;
  }

 private:
  BasicTensor<T> mean_, deviation_;
};

/// AdamW on one block; moments and the number of steps restart with every relocation, after which
/// the rate rises again.
template <std::floating_point T>
struct BlockAdam {
  std::vector<T> m1, m2;
  Index steps = 0;
  std::optional<Index> since_restart = {};  ///< steps; none: there was no relocation
  void restart(bool keep_steps = false) {
    m1.clear();
    m2.clear();
    if (!keep_steps) steps = 0;
    since_restart = 0;
  }
  void step(T* value, const T* gradient, Index count, double rate, const LoSiAConfig& config) {
    m1.resize(static_cast<std::size_t>(count), 0);
    m2.resize(static_cast<std::size_t>(count), 0);
    ++steps;
    if (since_restart) rate *= config.restart_factor(++*since_restart);
    const double b1 = config.betas[0], b2 = config.betas[1], t = static_cast<double>(steps);
    for (Index i = 0; i < count; ++i) {
      const auto at = static_cast<std::size_t>(i);
      const double g = gradient[i];
      const double first = b1 * m1[at] + (1 - b1) * g, second = b2 * m2[at] + (1 - b2) * g * g;
      m1[at] = static_cast<T>(first);
      m2[at] = static_cast<T>(second);
      const double moved = value[i] * (1 - rate * config.weight_decay);
      value[i] =
          static_cast<T>(moved - rate * first / (1 - std::pow(b1, t)) /
                                     (std::sqrt(second / (1 - std::pow(b2, t))) + config.eps));
    }
  }
};

}  // namespace selection

/// LoSiA: y = base(x) with the block W[ρ, γ] replaced by a trained one.
///
/// ρ: ⌊p out⌋ rows, γ: ⌊p in⌋ columns, random at the start; block: their product, from the frozen
/// values; trained: |ρ| |γ|. With `output_factor` p_o output layers have ⌊p_o out⌋ rows and all
/// columns. The identity at the start; merges. Its gradient is (dy[:, ρ])ᵀ x[:,
/// γ], and only x[:, γ] is kept (LoSiA-Pro). A relocation writes the block into the weight of the
/// layer, as the method edits weights in place: after training with relocations save the merged
/// model, the file of the adapter holds the last block alone. Source: Wang et al. 2025
/// (arXiv:2507.04487), sections 3.2 and 3.4. Tensors: losia_rows, losia_cols, losia_weight.
template <std::floating_point T>
class BasicLoSiA {
 public:
  using Scalar = T;
  using Config = LoSiAConfig;

  BasicLoSiA(const LoSiAConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : path_(site.path),
        out_(site.out_features),
        in_(site.in_features),
        weight_(site.weight),
        replace_weight_(site.replace_weight),
        rows_(std::make_shared<IndexTensor>()),
        columns_(std::make_shared<IndexTensor>()) {
    config.validate();
    if (site.conv.groups > 1)
      throw ValueError(concat("LoSiA: the grouped convolution ", path_, " is not supported"));
    rows_->type = columns_->type = IndexTensor::Type::i32;
    if (!config.rank_factor && !context.loading)
      throw ValueError("LoSiA: rank_factor is null, but no checkpoint gives the sizes");
    const bool output = config.output_factor && site.model.is_output_layer(path_);
    const double p_rows = output ? *config.output_factor : config.rank_factor.value_or(0.125),
                 p_columns = output ? 1.0 : config.rank_factor.value_or(0.125);
    const auto count = [](Index n, double p) {
      return std::max<Index>(1, static_cast<Index>(std::floor(p * static_cast<double>(n))));
    };
    const auto draw = [&](Index n, double p) {
      selection::Places list(static_cast<std::size_t>(count(n, p)));
      std::iota(list.begin(), list.end(), std::int64_t{0});
      if (context.loading) return list;
      auto order = context.generator.randperm(n);
      std::copy_n(order.begin(), list.size(), list.begin());
      std::sort(list.begin(), list.end());
      return list;
    };
    block_ = BasicParameter<T>(BasicTensor<T>::zeros({count(out_, p_rows), count(in_, p_columns)}));
    auto rows = draw(out_, p_rows), columns = draw(in_, p_columns);
    place({std::move(rows), std::move(columns)}, !context.loading);
  }
  /// For a layer of one's own, which must outlive this; values are drawn from `seed`.
  template <Linear L>
  BasicLoSiA(const LoSiAConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicLoSiA(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto change =
        sub(tape.parameter(block_), tape.constant(block_of(weight_of(detail::root_of(base)))));
    const auto y = add(linear(base, x), subnet_linear(x, change, places_, out_));
    if (!observer_) return y;
    return observe_linear<T>(y, x, observer_);
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(3);
    list[0].name = "losia_rows";
    list[0].index = rows_;
    list[1].name = "losia_cols";
    list[1].index = columns_;
    list[2].name = "losia_weight";
    list[2].parameter = block_;
    return list;
  }
  void before_load(const CheckpointShapes& shapes) {
    const Shape* shape = shapes("losia_weight");
    if (shape == nullptr || shape->rank() != 2) return;
    block_.assign(BasicTensor<T>::zeros(*shape));
    rows_->shape = {(*shape)[0]};
    columns_->shape = {(*shape)[1]};
  }
  /// @throws ValueError for rows and columns that do not exist or do not fit the block.
  void after_load() {
    const auto check = [&](const IndexTensor& index, Index limit, Index count, const char* name) {
      if (static_cast<Index>(index.values.size()) != count)
        throw ValueError(concat(name, " of ", path_, ": ", index.values.size(), " for ", count));
      for (const auto i : index.values)
        if (i < 0 || i >= limit)
          throw ValueError(concat(name, " of ", path_, ": ", i, " of ", limit));
    };
    check(*rows_, out_, block_.shape()[0], "losia_rows");
    check(*columns_, in_, block_.shape()[1], "losia_cols");
    auto places = std::make_shared<SubnetPlaces>();
    for (const auto r : rows_->values) places->rows.push_back(static_cast<std::int32_t>(r));
    for (const auto c : columns_->values) places->columns.push_back(static_cast<std::int32_t>(c));
    places_ = std::move(places);
  }

  /// The weight with the trained block in it.
  BasicTensor<T> whole_weight() const {
    auto w = weight_().clone();
    const Index width = block_.shape()[1];
    for (std::size_t i = 0; i < places_->rows.size(); ++i)
      for (std::size_t j = 0; j < places_->columns.size(); ++j)
        w[places_->rows[i] * in_ + places_->columns[j]] =
            block_.value()[static_cast<Index>(i) * width + static_cast<Index>(j)];
    return w;
  }
  /// Writes the block into the weight and goes on with another.
  void relocate(selection::Subnet subnet) {
    if (!replace_weight_)
      throw ValueError(concat("LoSiA: the weight of ", path_, " cannot take the trained block"));
    replace_weight_(whole_weight());
    rewritten_ = true;
    place(std::move(subnet), true);
  }
  /// The frozen weight, if relocations changed it; empty: it is the one of the model.
  BasicTensor<T> rewritten_weight() const { return rewritten_ ? weight_() : BasicTensor<T>{}; }
  void rewrite_weight(BasicTensor<T> weight) {
    replace_weight_(std::move(weight));
    rewritten_ = true;
  }
  const BasicParameter<T>& block() const { return block_; }
  Index out_features() const { return out_; }
  Index in_features() const { return in_; }
  void observe(LinearObserver<T> observer) { observer_ = std::move(observer); }

 private:
  void place(selection::Subnet subnet, bool read) {
    rows_->shape = {static_cast<Index>(subnet.rows.size())};
    columns_->shape = {static_cast<Index>(subnet.columns.size())};
    rows_->values = std::move(subnet.rows);
    columns_->values = std::move(subnet.columns);
    after_load();
    if (!read) return;
    const auto values = block_of(weight_());
    std::copy_n(values.data(), values.size(), block_.value().data());
  }
  BasicTensor<T> block_of(const BasicTensor<T>& w) const {
    auto block = BasicTensor<T>::empty(block_.shape());
    T* to = block.data();
    for (const auto r : places_->rows)
      for (const auto c : places_->columns) *to++ = w[r * in_ + c];
    return block;
  }

  std::string path_;
  Index out_, in_;
  std::function<BasicTensor<T>()> weight_;
  std::function<void(BasicTensor<T>)> replace_weight_;
  std::shared_ptr<IndexTensor> rows_, columns_;
  std::shared_ptr<const SubnetPlaces> places_;
  BasicParameter<T> block_;
  LinearObserver<T> observer_;
  bool rewritten_ = false;
};

/// LoSiA in training: the optimiser of the blocks; one site after the other records the importance
/// of its entries for a period and is relocated at its end. Its rate then rises from 0 to that of
/// the run again.
template <std::floating_point T>
class LoSiAProcedure final : public Procedure<T> {
 public:
  LoSiAProcedure(const LoSiAConfig& config, std::vector<BasicLoSiA<T>*> parts)
      : config_(config), parts_(std::move(parts)), adam_(parts_.size()) {}

  void before_step(const StepInfo& info) override {
    if (parts_.empty()) return;
    const Index t = info.step - 1;
    auto& part = *parts_[recording(t)];
    if (t % config_.period == 0 || !recording_) {
      importance_ = selection::Importance<T>(Shape{part.out_features(), part.in_features()});
      recording_ = true;
      recorded_ = recording(t);
    }
    gradient_ = {};
    part.observe([this](const auto& x, const auto& dy) {
      if (!gradient_) gradient_ = BasicTensor<T>::zeros({dy.cols(), x.cols()});
      kernels::gemm(true, false, dy.cols(), x.cols(), x.rows(), T{1}, dy.data(), dy.cols(),
                    x.data(), x.cols(), T{1}, gradient_.data(), x.cols());
    });
  }
  void after_backward(const StepInfo& info) override {
    if (parts_.empty()) return;
    const Index t = info.step - 1;
    const std::size_t group = recording(t);
    parts_[group]->observe({});
    if (gradient_)
      importance_.see(parts_[group]->whole_weight(), gradient_, config_.importance_beta1,
                      config_.importance_beta2);
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      const auto& block = parts_[i]->block();
      if (!block.grad()) continue;
      adam_[i].step(block.value().data(), block.grad().data(), block.size(), info.learning_rate,
                    config_);
      block.zero_grad();
    }
    if ((t + 1) % config_.period != 0) return;
    const Shape shape = parts_[group]->block().shape();
    parts_[group]->relocate(selection::localise(importance_.score(), shape[0], shape[1]));
    adam_[group].restart(config_.keep_adam_steps);
    recording_ = false;
  }
  std::map<std::string, std::vector<double>> state() const override {
    detail::ProcedureState all;
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      const std::string name = std::to_string(i);
      detail::keep_values(all, name + ".weight", parts_[i]->rewritten_weight());
      all[name + ".m1"].assign(adam_[i].m1.begin(), adam_[i].m1.end());
      all[name + ".m2"].assign(adam_[i].m2.begin(), adam_[i].m2.end());
      all[name + ".steps"] = {static_cast<double>(adam_[i].steps)};
      if (adam_[i].since_restart)
        all[name + ".since"] = {static_cast<double>(*adam_[i].since_restart)};
    }
    if (recording_) {
      importance_.keep(all, "importance");
      all["recording"] = {static_cast<double>(recorded_)};
    }
    return all;
  }
  void set_state(const std::map<std::string, std::vector<double>>& all) override {
    for (std::size_t i = 0; i < parts_.size(); ++i) {
      const std::string name = std::to_string(i);
      const Shape shape{parts_[i]->out_features(), parts_[i]->in_features()};
      if (auto weight = detail::kept_values<T>(all, name + ".weight", shape))
        parts_[i]->rewrite_weight(std::move(weight));
      const auto moment = [&](const std::string& key) {
        const auto it = all.find(key);
        return it == all.end() ? std::vector<T>()
                               : std::vector<T>(it->second.begin(), it->second.end());
      };
      adam_[i].m1 = moment(name + ".m1");
      adam_[i].m2 = moment(name + ".m2");
      adam_[i].steps = static_cast<Index>(detail::kept_number(all, name + ".steps", 0));
      adam_[i].since_restart.reset();
      if (const double since = detail::kept_number(all, name + ".since", -1); since >= 0)
        adam_[i].since_restart = static_cast<Index>(since);
    }
    recording_ = all.contains("recording");
    if (!recording_) return;
    recorded_ = static_cast<std::size_t>(all.at("recording").at(0));
    const auto& part = *parts_.at(recorded_);
    importance_ = selection::Importance<T>(Shape{part.out_features(), part.in_features()});
    importance_.restore(all, "importance");
  }

 private:
  std::size_t recording(Index t) const {
    return static_cast<std::size_t>(t / config_.period % static_cast<Index>(parts_.size()));
  }

  LoSiAConfig config_;
  std::vector<BasicLoSiA<T>*> parts_;
  std::vector<selection::BlockAdam<T>> adam_;
  selection::Importance<T> importance_;
  BasicTensor<T> gradient_;
  bool recording_ = false;
  std::size_t recorded_ = 0;
};

template <std::floating_point T>
struct LoSiAMethod {
  using Scalar = T;
  using Config = LoSiAConfig;
  static MethodInfo info() {
    return {.peft_type = "LOSIA",
            .name = "LoSiA",
            .family = "selection",
            .paper = "arXiv:2507.04487",
            .sites = "linear, conv",
            .parameters = "floor(p out) floor(p in), p = rank_factor",
            .in_peft = false};
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    return linear_part(BasicLoSiA<T>(config, site, context));
  }
  static std::unique_ptr<Procedure<T>> procedure(const Config& config,
                                                 const std::vector<PlacedPart<T>>& parts) {
    return std::make_unique<LoSiAProcedure<T>>(config, methods_of<BasicLoSiA<T>>(parts));
  }
};

using LoSiA = BasicLoSiA<float>;

}  // namespace graft::inline v0_1
