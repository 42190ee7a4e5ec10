#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/method.hpp"
#include "graft/adapters/selection/scores.hpp"
#include "graft/autograd/ops/sparse_matmul.hpp"

namespace graft::inline v0_1 {

/// Configuration of NeuroAda.
struct NeuroAdaConfig {
  Index k = 1;  ///< trained connections of every output
  /// magnitude, reverse (the smallest), random, or gradient: of the first step, which only scores
  std::string selection = "magnitude";
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "NEUROADA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("k", k);
    v("selection", selection);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for k below one or an unknown word.
  void validate() const {
    if (k < 1) throw ValueError(concat("NeuroAda: k ", k, ", expected at least 1"));
    if (selection != "magnitude" && selection != "reverse" && selection != "random" &&
        selection != "gradient")
      throw ValueError(concat("NeuroAda: selection '", selection,
                              "', expected magnitude, reverse, random or gradient"));
  }
};

/// NeuroAda: y_o = base(x)_o + Σ_j θ_oj x_{idx_oj}, k connections for every output o.
///
/// θ: [out, k], zero; trained: out k. idx: [out, k] int32, by default the inputs with the largest
/// |W|, best first. The identity at the start; merges. Source: Zhang et al. 2025
/// (arXiv:2510.18940), section 3. Tensors: neuroada_indices, neuroada_values.
template <std::floating_point T>
class BasicNeuroAda {
 public:
  using Scalar = T;
  using Config = NeuroAdaConfig;

  /// @throws ValueError if k is above in, or at a grouped convolution.
  BasicNeuroAda(const NeuroAdaConfig& config, const LinearSiteInfo<T>& site,
                InitContext<T>& context)
      : path_(site.path), out_(site.out_features), in_(site.in_features) {
    config.validate();
    if (config.k > in_)
      throw ValueError(concat("NeuroAda: k ", config.k, " of ", in_, " inputs of ", path_));
    if (site.conv.groups > 1)
      throw ValueError(concat("NeuroAda: the grouped convolution ", path_, " is not supported"));
    values_ = BasicParameter<T>(BasicTensor<T>::zeros({out_, config.k}));
    places_ = std::make_shared<IndexTensor>();
    places_->type = IndexTensor::Type::i32;
    places_->shape = {out_, config.k};
    places_->values.assign(static_cast<std::size_t>(out_ * config.k), 0);
    if (config.selection == "gradient") {
      for (std::size_t i = 0; i < places_->values.size(); ++i)
        places_->values[i] = static_cast<Index>(i) % config.k;
    } else if (!context.loading) {
      BasicTensor<T> scores;
      if (config.selection == "random") {
        scores = BasicTensor<T>::empty({out_, in_});
        context.generator.uniform(scores.data(), scores.size(), 0, 1);
      } else {
        scores = selection::magnitude(site.weight(), config.selection == "magnitude");
      }
      places_->values = selection::best_of_rows(scores, config.k);
    }
    after_load();
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicNeuroAda(const NeuroAdaConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicNeuroAda(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    const auto y = add_sparse_matmul(linear(base, x), x, x.tape().parameter(values_), pattern_);
    if (!sum_) return y;
    return observe_linear<T>(y, x,
                             [sum = sum_](const auto& in, const auto& dy) { sum->see(in, dy, 1); });
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(2);
    list[0].name = "neuroada_indices";
    list[0].index = places_;
    list[1].name = "neuroada_values";
    list[1].parameter = values_;
    return list;
  }
  /// @throws ValueError for an input that does not exist.
  void after_load() {
    auto pattern = std::make_shared<SparsePattern>();
    pattern->rows = out_;
    pattern->cols = in_;
    const Index k = values_.shape()[1];
    for (std::size_t i = 0; i < places_->values.size(); ++i) {
      const auto column = places_->values[i];
      if (column < 0 || column >= in_)
        throw ValueError(concat("neuroada_indices of ", path_, ": input ", column, " of ", in_));
      pattern->row.push_back(static_cast<std::int32_t>(static_cast<Index>(i) / k));
      pattern->col.push_back(static_cast<std::int32_t>(column));
    }
    pattern_ = std::move(pattern);
  }

  /// Begins to gather the gradient of the weight.
  void score() { sum_ = std::make_shared<selection::GradientSum<T>>(out_, in_, false); }
  /// Chooses the inputs by what was gathered. Values stay zero.
  void choose() {
    places_->values =
        selection::best_of_rows(selection::magnitude(sum_->sum()), values_.shape()[1]);
    sum_.reset();
    values_.zero_grad();
    after_load();
  }

 private:
  std::string path_;
  Index out_, in_;
  BasicParameter<T> values_;
  std::shared_ptr<IndexTensor> places_;
  std::shared_ptr<const SparsePattern> pattern_;
  std::shared_ptr<selection::GradientSum<T>> sum_;
};

/// NeuroAda by gradients: the first step only scores.
template <std::floating_point T>
class NeuroAdaProcedure final : public Procedure<T> {
 public:
  explicit NeuroAdaProcedure(std::vector<BasicNeuroAda<T>*> parts) : parts_(std::move(parts)) {}
  void before_step(const StepInfo& info) override {
    if (info.step == 1)
      for (auto* part : parts_) part->score();
  }
  void after_backward(const StepInfo& info) override {
    if (info.step == 1)
      for (auto* part : parts_) part->choose();
  }

 private:
  std::vector<BasicNeuroAda<T>*> parts_;
};

template <std::floating_point T>
struct NeuroAdaMethod {
  using Scalar = T;
  using Config = NeuroAdaConfig;
  static MethodInfo info() {
    return {.peft_type = "NEUROADA",
            .name = "NeuroAda",
            .family = "selection",
            .paper = "arXiv:2510.18940",
            .sites = "linear, conv",
            .parameters = "out k",
            .in_peft = false};
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    return linear_part(BasicNeuroAda<T>(config, site, context));
  }
  static std::unique_ptr<Procedure<T>> procedure(const Config& config,
                                                 const std::vector<PlacedPart<T>>& parts) {
    if (config.selection != "gradient") return nullptr;
    return std::make_unique<NeuroAdaProcedure<T>>(methods_of<BasicNeuroAda<T>>(parts));
  }
};

using NeuroAda = BasicNeuroAda<float>;

}  // namespace graft::inline v0_1
