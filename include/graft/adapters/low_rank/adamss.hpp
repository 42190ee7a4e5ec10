#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/low_rank/kmeans.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/randomized_svd.hpp"

namespace graft::inline v0_1 {

/// Configuration of AdaMSS, fields as PEFT's AdamssConfig.
struct AdaMSSConfig {
  Index rank = 100;     ///< r, of the decomposition of W, at most min(in + 1, out)
  Index subspaces = 5;  ///< num_subspaces: clusters of rows
  Index subspace_rank = 1;
  ConfigValue init_weights = "orthogonal";  ///< null: B random
  bool use_dynamic_rank = false;            ///< rank of a cluster by svd_threshold
  double svd_threshold = 0.1;               ///< of the largest singular value
  std::uint64_t random_seed = 0;            ///< of the decomposition
  bool use_asa = false;                     ///< train fewer and fewer subspaces
  Index target_subspaces = 50;              ///< asa_target_subspaces, of the model at the end
  Index init_warmup = 50;                   ///< first step that counts
  Index final_warmup = 1000;                ///< last step that counts
  Index mask_interval = 100;
  double importance_beta = 0.85;   ///< asa_importance_beta
  double uncertainty_beta = 0.85;  ///< asa_uncertainty_beta
  double schedule_exponent = 3;    ///< asa_schedule_exponent
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "ADAMSS";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("num_subspaces", subspaces);
    v("subspace_rank", subspace_rank);
    v("init_weights", init_weights);
    v("use_dynamic_rank", use_dynamic_rank);
    v("svd_threshold", svd_threshold);
    v("random_seed", random_seed);
    v("use_asa", use_asa);
    v("asa_target_subspaces", target_subspaces);
    v("init_warmup", init_warmup);
    v("final_warmup", final_warmup);
    v("mask_interval", mask_interval);
    v("asa_importance_beta", importance_beta);
    v("asa_uncertainty_beta", uncertainty_beta);
    v("asa_schedule_exponent", schedule_exponent);
    v("target_modules", target_modules);
    select.fields(v, {.exclude_modules = false, .rank_pattern = false, .alpha_pattern = false});
  }
  /// @throws ValueError for sizes or steps that cannot be.
  void validate() const {
    if (rank < 1 || subspaces < 1 || subspace_rank < 1)
      throw ValueError(concat("AdaMSS: r ", rank, ", num_subspaces ", subspaces,
                              " and subspace_rank ", subspace_rank, ", expected at least 1 each"));
    if (use_asa && (mask_interval < 1 || final_warmup <= init_warmup || target_subspaces < 1))
      throw ValueError(concat("AdaMSS: mask_interval ", mask_interval, ", init_warmup ",
                              init_warmup, ", final_warmup ", final_warmup,
                              " and asa_target_subspaces ", target_subspaces, " do not fit"));
  }
};

/// AdaMSS: the rows of W fall into clusters; the update of the rows of cluster i is B_i A_i N [x;
/// 1], N = the leading right singular vectors of [W | b].
///
/// N: [r, in (+ 1)], frozen and saved; A_i: [ρ, r] with orthonormal rows, B_i: [n_i, ρ] = 0, ρ =
/// subspace_rank or the size of the cluster; trained: Σ ρ (r + n_i). Clusters are those of k-means
/// (10 iterations, one random start) over the rows of the left singular vectors. The identity at
/// the start; merges into weight and bias. Source:
/// AdaMSS, NeurIPS 2025, in the form of PEFT, which does not store the clusters: they are computed
/// again from the frozen weight when a file is read, with scikit-learn's draws, so that the file of
/// a Python user means the same rows here. Tensors: `adamss_A.<i>`, `adamss_B.<i>`, adamss_newB.
template <std::floating_point T>
class BasicAdaMSS {
 public:
  using Scalar = T;
  using Config = AdaMSSConfig;

  BasicAdaMSS(const AdaMSSConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : in_(site.in_features), out_(site.out_features) {
    config.validate();
    if (!site.weight) throw ValueError(concat("AdaMSS: needs the weight of ", site.path));
    const auto weight = site.weight();
    const Index width = in_ + (site.bias ? 1 : 0), r = std::min({config.rank, out_, width});
    auto joined = BasicTensor<T>::empty({out_, width});
    for (Index o = 0; o < out_; ++o) {
      std::copy_n(weight.data() + o * in_, in_, joined.data() + o * width);
      if (site.bias) joined(o, in_) = site.bias[o];
    }
    TorchGenerator generator(config.random_seed);
    const auto d = randomized_svd(joined, r, 2, generator);
    constexpr std::uint64_t kSeed = 123456789;
    const auto clusters = kmeans_random(d.u, config.subspaces, 10, kSeed).of_row;
    auto projection = BasicTensor<T>::empty({r, width});
    for (Index k = 0; k < r; ++k)
      for (Index i = 0; i < width; ++i) projection(k, i) = d.v(i, k);
    projection_ = BasicParameter<T>(projection, false);

    const Index count = 1 + *std::max_element(clusters.begin(), clusters.end());
    place_.resize(static_cast<std::size_t>(out_));
    Index row = 0;
    for (Index c = 0; c < count; ++c) {
      std::vector<Index> rows;
      for (Index o = 0; o < out_; ++o)
        if (clusters[static_cast<std::size_t>(o)] == c) rows.push_back(o);
      const Index n = static_cast<Index>(rows.size());
      auto part = BasicTensor<T>::empty({n, r});
      for (Index i = 0; i < n; ++i) {
        const Index o = rows[static_cast<std::size_t>(i)];
        std::copy_n(d.u.data() + o * r, r, part.data() + i * r);
        place_[static_cast<std::size_t>(o)] = row++;
      }
      add_subspace(config, part, context);
    }
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicAdaMSS(const AdaMSSConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicAdaMSS(config, with_bias(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    std::vector<BasicVar<T>> parts;
    for (std::size_t i = 0; i < a_.size(); ++i)
      parts.push_back(matmul(tape.parameter(b_[i]), tape.parameter(a_[i])));
    const auto rows = gather_rows(concat_along(0, parts), place_);
    const Index r = projection_.shape()[0], width = projection_.shape()[1];
    const auto n = tape.constant(projection_.value());
    const auto y = linear_low_rank(base, x, x, width == in_ ? n : slice(n, 1, 0, in_), rows, T{1});
    if (width == in_) return y;
    return add(y, reshape(matmul(rows, reshape(slice(n, 1, in_, 1), {r, 1})), {out_}));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    const auto put = [&](std::string name, const BasicParameter<T>& p) {
      list.push_back({.name = std::move(name), .parameter = p, .index = {}, .file_shape = {}});
    };
    for (std::size_t i = 0; i < a_.size(); ++i) put(concat("adamss_A.", i), a_[i]);
    for (std::size_t i = 0; i < b_.size(); ++i) put(concat("adamss_B.", i), b_[i]);
    put("adamss_newB", projection_);
    return list;
  }
  /// The ranks of the clusters may depend on rounding: those of the file count.
  void before_load(const CheckpointShapes& shapes) {
    for (std::size_t i = 0; i < a_.size(); ++i) {
      const Shape* a = shapes(concat("adamss_A.", i));
      if (a == nullptr || a->rank() != 2 || (*a)[0] == a_[i].shape()[0]) continue;
      a_[i].assign(BasicTensor<T>::zeros({(*a)[0], a_[i].shape()[1]}));
      b_[i].assign(BasicTensor<T>::zeros({b_[i].shape()[0], (*a)[0]}));
    }
  }

  Index subspaces() const { return static_cast<Index>(a_.size()); }
  const BasicParameter<T>& a(Index i) const { return a_[static_cast<std::size_t>(i)]; }
  const BasicParameter<T>& b(Index i) const { return b_[static_cast<std::size_t>(i)]; }
  /// Row of the joined clusters that row o of the weight is.
  const std::vector<Index>& places() const { return place_; }

 private:
  template <Linear L>
  static LinearSiteInfo<T> with_bias(const L& base) {
    auto site = site_info(base);
    site.bias = bias_of(base);
    return site;
  }
  /// part: [n, r], the left singular vectors of the rows of a cluster.
  void add_subspace(const AdaMSSConfig& config, const BasicTensor<T>& part,
                    InitContext<T>& context) {
    const Index n = part.rows(), r = part.cols();
    Index rank = std::min(n, config.subspace_rank);
    const auto d = svd(part);  // its left vectors are those of the Gram matrix, with squared values
    if (config.use_dynamic_rank) {
      Index large = 0;
      for (Index k = 0; k < d.s.size(); ++k)
        if (d.s[k] * d.s[k] > static_cast<T>(config.svd_threshold) * d.s[0] * d.s[0]) ++large;
      rank = std::max<Index>(1, std::min(large, rank));
    }
    auto a = BasicTensor<T>::zeros({rank, r});
    auto b = BasicTensor<T>::zeros({n, rank});
    if (!context.loading) {
      // An orthonormal basis of partᵀ U is that of the leading right vectors.
      for (Index k = 0; k < std::min(rank, d.s.size()); ++k)
        for (Index j = 0; j < r; ++j) a(k, j) = d.v(j, k);
      const auto* word = config.init_weights.get_if<std::string>();
      if (word == nullptr || *word != "orthogonal") {
        b = detail::normal_tensor<T>(context.generator, b.shape(), 1);
        for (T& v : b) v *= static_cast<T>(0.01);
      }
    }
    a_.emplace_back(a);
    b_.emplace_back(b);
  }

  Index in_, out_;
  BasicParameter<T> projection_;
  std::vector<BasicParameter<T>> a_, b_;
  std::vector<Index> place_;
};

/// AdaMSS with use_asa: between init_warmup and final_warmup, every mask_interval steps only the
/// best subspaces of the model go on learning; the others keep their values.
///
/// I = |p g| for every element, g clipped; Ū ← β₂ Ū + (1 − β₂)|I − Ī|, then Ī ← β₁ Ī + (1 − β₁) I;
/// a subspace scores mean(Ī Ū) of A plus that of B. target + (all − target) (1 − progress)^exponent
/// of them stay; the averages begin anew after that.
template <std::floating_point T>
class AdaMSSProcedure final : public Procedure<T> {
 public:
  AdaMSSProcedure(const AdaMSSConfig& config, const std::vector<PlacedPart<T>>& parts)
      : config_(config) {
    for (const auto& placed : parts)
      if (auto* method = method_of<BasicAdaMSS<T>>(placed.part.get())) {
        parts_.push_back(placed.part);
        for (Index i = 0; i < method->subspaces(); ++i)
          for (const bool first : {true, false})
            factors_.push_back({first ? method->a(i) : method->b(i), {}, {}});
      }
  }
  void after_step(const StepInfo& info) override {
    if (info.step < config_.init_warmup || info.step > config_.final_warmup) return;
    const T b1 = static_cast<T>(config_.importance_beta),
            b2 = static_cast<T>(config_.uncertainty_beta),
            scale = static_cast<T>(info.gradient_scale);
    for (auto& f : factors_) {
      const auto p = f.parameter.value(), g = f.parameter.grad();
      if (!g || !f.parameter.trainable()) continue;
      if (!f.importance) {
        f.importance = BasicTensor<T>::zeros({p.size()});
        f.uncertainty = BasicTensor<T>::zeros({p.size()});
      }
      for (Index i = 0; i < p.size(); ++i) {
        const T now = std::abs(p[i] * (scale * g[i]));
        f.uncertainty[i] = b2 * f.uncertainty[i] + (1 - b2) * std::abs(now - f.importance[i]);
        f.importance[i] = b1 * f.importance[i] + (1 - b1) * now;
      }
    }
    if (info.step % config_.mask_interval != 0) return;
    mask(target_at(info.step));
    for (auto& f : factors_) f.importance = f.uncertainty = {};
  }
  /// Subspaces that go on learning after a masking at this step.
  Index target_at(Index step) const {
    const double all = static_cast<double>(factors_.size() / 2),
                 target = static_cast<double>(config_.target_subspaces);
    const double rest = 1 - static_cast<double>(step - config_.init_warmup) /
                                static_cast<double>(config_.final_warmup - config_.init_warmup);
    return static_cast<Index>(
        target + (all - target) * std::pow(std::clamp(rest, 0.0, 1.0), config_.schedule_exponent));
  }
  std::map<std::string, std::vector<double>> state() const override {
    std::map<std::string, std::vector<double>> all;
    for (std::size_t i = 0; i < factors_.size(); ++i) {
      const auto& f = factors_[i];
      all[concat("trained.", i)] = {f.parameter.trainable() ? 1.0 : 0.0};
      if (!f.importance) continue;
      all[concat("importance.", i)].assign(f.importance.begin(), f.importance.end());
      all[concat("uncertainty.", i)].assign(f.uncertainty.begin(), f.uncertainty.end());
    }
    return all;
  }
  void set_state(const std::map<std::string, std::vector<double>>& all) override {
    for (std::size_t i = 0; i < factors_.size(); ++i) {
      auto& f = factors_[i];
      if (const auto it = all.find(concat("trained.", i)); it != all.end())
        f.parameter.set_trainable(it->second.at(0) != 0);
      const auto importance = all.find(concat("importance.", i)),
                 uncertainty = all.find(concat("uncertainty.", i));
      f.importance = f.uncertainty = {};
      if (importance == all.end() || uncertainty == all.end()) continue;
      f.importance = BasicTensor<T>::from(importance->second, {f.parameter.size()});
      f.uncertainty = BasicTensor<T>::from(uncertainty->second, {f.parameter.size()});
    }
  }

 private:
  struct Factor {
    BasicParameter<T> parameter;
    BasicTensor<T> importance, uncertainty;
  };
  void mask(Index target) {
    std::vector<std::pair<double, std::size_t>> scores;
    for (std::size_t i = 0; i + 1 < factors_.size(); i += 2) {
      if (!factors_[i].importance || !factors_[i + 1].importance) continue;
      double score = 0;
      for (std::size_t j = i; j < i + 2; ++j) {
        double sum = 0;
        for (Index e = 0; e < factors_[j].importance.size(); ++e)
          sum += static_cast<double>(factors_[j].importance[e] * factors_[j].uncertainty[e]);
        score += sum / static_cast<double>(factors_[j].importance.size());
      }
      scores.emplace_back(score, i);
    }
    if (scores.empty() || target >= static_cast<Index>(scores.size())) return;
    std::vector<double> sorted;
    for (const auto& [score, i] : scores) sorted.push_back(score);
    std::sort(sorted.begin(), sorted.end(), std::greater<>());
    const double threshold = target < 1 ? INFINITY : sorted[static_cast<std::size_t>(target - 1)];
    for (const auto& [score, i] : scores) {
      // PEFT keeps what is above the threshold, so the last of the best drops out.
      const bool stays = score > threshold;
      for (std::size_t j = i; j < i + 2; ++j) {
        factors_[j].parameter.set_trainable(stays);
        if (!stays) factors_[j].parameter.zero_grad();
      }
    }
  }

  AdaMSSConfig config_;
  std::vector<std::shared_ptr<AdapterPart<T>>> parts_;
  std::vector<Factor> factors_;  // A and B of every subspace in turn
};

/// AdaMSS with its allocation of subspaces.
template <std::floating_point T>
struct AdaMSSMethod {
  using Scalar = T;
  using Config = AdaMSSConfig;
  static MethodInfo info() {
    return {.peft_type = "ADAMSS",
            .name = "AdaMSS",
            .family = "low_rank",
            .paper = "NeurIPS 2025",
            .sites = "linear",
            .parameters = "; sum of rho (r + n_i)"};
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    return linear_part(BasicAdaMSS<T>(config, site, context));
  }
  static std::unique_ptr<Procedure<T>> procedure(const Config& config,
                                                 const std::vector<PlacedPart<T>>& parts) {
    if (!config.use_asa) return nullptr;
    return std::make_unique<AdaMSSProcedure<T>>(config, parts);
  }
};

using AdaMSS = BasicAdaMSS<float>;

}  // namespace graft::inline v0_1
