#pragma once

#include <cmath>
#include <cstdint>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"
#include "graft/autograd/ops/take_shared.hpp"

namespace graft::inline v0_1 {

/// Configuration of Uni-LoRA, fields as PEFT's UniLoraConfig.
struct UniLoRAConfig {
  Index rank = 4;
  Index theta_d_length = 256;  ///< trained elements of the whole model
  std::uint64_t proj_seed = 42;
  double init_theta_d_bound = 0.02;
  bool init_weights = true;   ///< false: N(0, 1)
  bool save_indices = false;  ///< true: files hold the index and its scales
  double dropout = 0;         ///< on the input of the branch, while training
  bool fan_in_fan_out = false;
  std::string bias = "none";
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "UNILORA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("theta_d_length", theta_d_length);
    v("proj_seed", proj_seed);
    v("init_theta_d_bound", init_theta_d_bound);
    v("init_weights", init_weights);
    v("save_indices", save_indices);
    v("unilora_dropout", dropout);
    v("fan_in_fan_out", fan_in_fan_out);
    v("bias", bias);
    v("target_modules", target_modules);
    select.fields(v, {.exclude_modules = false, .rank_pattern = false, .alpha_pattern = false});
  }
  /// @throws ValueError for a rank or a length below one.
  void validate() const {
    if (rank < 1 || theta_d_length < 1)
      throw ValueError(concat("Uni-LoRA: rank ", rank, " and theta_d_length ", theta_d_length,
                              ", expected at least 1"));
  }
};

/// Which element of a vector of `length` each of `count` places takes: every one ⌊count / length⌋
/// or ⌈count / length⌉ times, shuffled as numpy's generator does it from `seed`.
inline std::vector<std::int32_t> balanced_index(Index count, Index length, std::uint64_t seed) {
  NumpyGenerator generator(seed);
  std::vector<std::int64_t> all;
  all.reserve(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < length; ++i)
    all.insert(all.end(), static_cast<std::size_t>(count / length), i);
  if (count % length > 0)
    for (const auto i : generator.choice(length, count % length, false)) all.push_back(i);
  generator.shuffle(std::span(all));
  return {all.begin(), all.end()};
}

/// Uni-LoRA: LoRA without scaling whose factors are A = P_A θ and B = P_B θ for one vector θ of the
/// whole model; every place takes one element of θ, divided by the root of how often it is taken.
///
/// θ: [theta_d_length], the only trained tensor; A: [rank, in], B: [out, rank]. Not the identity at
/// the start. Merges. Source: Li et al. 2025 (arXiv:2506.00799); places in the order of the layers,
/// A before B, drawn as in PEFT. Tensors: base_model.unilora_theta_d; with save_indices
/// unilora_indices_A, _B (int64) and unilora_scales_A, _B.
template <std::floating_point T>
class BasicUniLoRA {
 public:
  using Scalar = T;
  using Config = UniLoRAConfig;

  static MethodInfo info() {
    return {.peft_type = "UNILORA",
            .name = "Uni-LoRA",
            .family = "low_rank",
            .paper = "arXiv:2506.00799",
            .sites = "linear",
            .parameters = "once theta_d_length",
            .identity_at_init = false};
  }

  BasicUniLoRA(const UniLoRAConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : config_((config.validate(), config)), in_(site.in_features), out_(site.out_features) {
    const Index d = config.theta_d_length, r = config.rank;
    theta_ = context.shared.get("unilora_theta_d", [&] {
      auto theta = BasicTensor<T>::zeros({d});
      const double bound = config.init_theta_d_bound;
      if (context.loading) return theta;
      if (config.init_weights)
        context.generator.uniform(theta.data(), d, -bound, bound);
      else
        context.generator.normal(theta.data(), d);
      return theta;
    });
    auto sites = site.all_sites;
    if (sites.empty()) sites = {{site.path, Shape{out_, in_}}};
    const auto places = context.shared.object("unilora_index", [&] {
      Index count = 0;
      for (const auto& [path, shape] : sites) count += r * (shape[0] + shape[1]);
      return balanced_index(count, d, config.proj_seed);
    });
    const auto roots = context.shared.object("unilora_scales", [&] {
      auto scales = BasicTensor<T>::zeros({d});
      for (const auto i : *places) scales[i] += 1;
      for (T& s : scales) s = s > 0 ? 1 / std::sqrt(s) : T{0};
      return scales;
    });
    Index first = 0;
    for (const auto& [path, shape] : sites) {
      if (path == site.path) break;
      first += r * (shape[0] + shape[1]);
    }
    scales_ = *roots;
    const auto part = [&](Index from, Index count) {
      return std::make_shared<const std::vector<std::int32_t>>(places->begin() + from,
                                                               places->begin() + from + count);
    };
    index_a_ = part(first, r * in_);
    index_b_ = part(first + r * in_, out_ * r);
    if (!config.save_indices) return;
    for (const bool a : {true, false}) {
      const auto& index = a ? *index_a_ : *index_b_;
      const Shape shape = a ? Shape{r, in_} : Shape{out_, r};
      auto file = std::make_shared<IndexTensor>();
      file->shape = shape;
      file->values.assign(index.begin(), index.end());
      auto values = BasicTensor<T>::empty(shape);
      for (Index i = 0; i < values.size(); ++i)
        values[i] = scales_[index[static_cast<std::size_t>(i)]];
      (a ? file_a_ : file_b_) = std::move(file);
      (a ? scales_a_ : scales_b_) = BasicParameter<T>(std::move(values), false);
    }
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicUniLoRA(const UniLoRAConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicUniLoRA(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    auto theta = tape.parameter(theta_);
    const Shape shape_a{config_.rank, in_}, shape_b{out_, config_.rank};
    BasicVar<T> a, b;
    if (config_.save_indices) {
      a = mul(take_shared(theta, index_a_, shape_a), tape.constant(scales_a_.value()));
      b = mul(take_shared(theta, index_b_, shape_b), tape.constant(scales_b_.value()));
    } else {
      theta = mul(theta, tape.constant(scales_));
      a = take_shared(theta, index_a_, shape_a);
      b = take_shared(theta, index_b_, shape_b);
    }
    return linear_low_rank(base, x, graft::dropout(x, config_.dropout), a, b, T{1});
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(1);
    list[0].name = "unilora_theta_d";
    list[0].parameter = theta_;
    list[0].scope = AdapterTensor<T>::Scope::model;
    if (!config_.save_indices) return list;
    for (const bool a : {true, false}) {
      AdapterTensor<T> index, scales;
      index.name = a ? "unilora_indices_A" : "unilora_indices_B";
      index.index = a ? file_a_ : file_b_;
      scales.name = a ? "unilora_scales_A" : "unilora_scales_B";
      scales.parameter = a ? scales_a_ : scales_b_;
      list.push_back(std::move(index));
      list.push_back(std::move(scales));
    }
    return list;
  }
  /// @throws ValueError if an index of the file is outside of θ.
  void after_load() {
    if (!config_.save_indices) return;
    for (const auto& file : {file_a_, file_b_})
      for (const auto i : file->values)
        if (i < 0 || i >= config_.theta_d_length)
          throw ValueError(concat("Uni-LoRA: index ", i, " of ", config_.theta_d_length));
    index_a_ = std::make_shared<const std::vector<std::int32_t>>(file_a_->values.begin(),
                                                                 file_a_->values.end());
    index_b_ = std::make_shared<const std::vector<std::int32_t>>(file_b_->values.begin(),
                                                                 file_b_->values.end());
  }

 private:
  UniLoRAConfig config_;
  Index in_, out_;
  BasicParameter<T> theta_;
  BasicTensor<T> scales_;  // of the elements of θ
  std::shared_ptr<const std::vector<std::int32_t>> index_a_, index_b_;
  std::shared_ptr<IndexTensor> file_a_, file_b_;
  BasicParameter<T> scales_a_, scales_b_;
};

using UniLoRA = BasicUniLoRA<float>;

}  // namespace graft::inline v0_1
