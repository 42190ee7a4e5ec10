#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/effective_weight.hpp"
#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"
#include "graft/autograd/ops/sparse_matmul.hpp"
#include "graft/tensor/decompositions.hpp"

namespace graft::inline v0_1 {

/// Configuration of DSEE.
struct DSEEConfig {
  Index rank = 16;
  double alpha = 32;
  double dropout = 0;
  Index num_sparse = 64;               ///< values of the sparse part
  double prune_ratio = 0;              ///< share of the frozen weights that are left out
  bool global_pruning = false;         ///< of all adapted layers together, not layer by layer
  std::string support = "decomposed";  ///< places of the sparse part: decomposed, magnitude, random
  Index rounds = 100;  ///< of the decomposition; fewer before its rank fills the layer
  Index inner_steps = 2;
  Index rank_step = 5;
  double threshold = 0.01;  ///< below it, an entry is no sparse one
  double head_prune_ratio = 0.25;
  double head_loss_weight = 1e-4;
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "DSEE";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("lora_alpha", alpha);
    v("lora_dropout", dropout);
    v("num_sparse", num_sparse);
    v("prune_ratio", prune_ratio);
    optional_field(v, "global_pruning", global_pruning, false);
    optional_field(v, "support", support, std::string("decomposed"));
    v("rounds", rounds);
    v("inner_steps", inner_steps);
    v("rank_step", rank_step);
    v("threshold", threshold);
    v("head_prune_ratio", head_prune_ratio);
    v("head_loss_weight", head_loss_weight);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for settings out of range or an unknown word.
  void validate() const {
    if (rank < 1 || num_sparse < 0 || rounds < 1 || inner_steps < 1 || rank_step < 1)
      throw ValueError(concat("DSEE: r ", rank, ", num_sparse ", num_sparse, ", rounds ", rounds,
                              ", inner_steps ", inner_steps, ", rank_step ", rank_step,
                              ", expected at least 1 (num_sparse 0)"));
    if (!(prune_ratio >= 0 && prune_ratio < 1))
      throw ValueError(concat("DSEE: prune_ratio ", prune_ratio, ", expected [0, 1)"));
    if (support != "decomposed" && support != "magnitude" && support != "random")
      throw ValueError(
          concat("DSEE: support '", support, "', expected decomposed, magnitude or random"));
  }
};

/// Low-rank plus sparse: |W − low_rank − sparse| < threshold everywhere.
struct DSEEDecomposition {
  BasicTensor<double> low_rank, sparse;
  Index rank = 0;
};

/// The greedy decomposition that DSEE takes its places from. Round by round: S ← 0, then
/// `inner_steps` times u ← Q of the QR of (W − S) vᵀ, v ← uᵀ (W − S), S ← the entries of W − u v
/// from `threshold` on; after it v gets the first `rank_step` rows of the R of W − u v − S. v0:
/// [1, in]. The rounds end before v has min(out, in) rows, where S would be empty.
/// A template, so that a program that has no use for it does not compile Eigen's decompositions.
template <std::same_as<double> T>
DSEEDecomposition dsee_decomposition(const BasicTensor<T>& w, const DSEEConfig& config,
                                     BasicTensor<T> v) {
  const Index out = w.rows(), in = w.cols(), full = std::min(out, in);
  const Index rounds = std::min(config.rounds, 1 + std::max<Index>(0, full - 2) / config.rank_step);
  DSEEDecomposition d;
  for (Index round = 0; round < rounds; ++round) {
    d.sparse = BasicTensor<T>::zeros({out, in});
    for (Index step = 0; step < config.inner_steps; ++step) {
      auto rest = w.clone();
      for (Index i = 0; i < rest.size(); ++i) rest[i] -= d.sparse[i];
      const auto u = qr(detail::product(rest, v, 1.0, false, true)).q;
      v = detail::product(u, rest, 1.0, true);
      d.low_rank = detail::product(u, v);
      for (Index i = 0; i < w.size(); ++i) {
        const double e = w[i] - d.low_rank[i];
        d.sparse[i] = std::abs(e) < config.threshold ? 0 : e;
      }
    }
    d.rank = v.rows();
    if (round + 1 == rounds) break;
    auto error = w.clone();
    for (Index i = 0; i < error.size(); ++i) error[i] -= d.low_rank[i] + d.sparse[i];
    const auto r = qr(error).r;
    const Index more = std::min({config.rank_step, r.rows(), full - v.rows()});
    auto longer = BasicTensor<T>::empty({v.rows() + more, in});
    std::copy(v.begin(), v.end(), longer.begin());
    std::copy_n(r.data(), more * in, longer.data() + v.size());
    v = longer;
  }
  return d;
}

/// Places of the `count` largest |w|, row by row; of equal ones the first.
template <std::floating_point T>
std::vector<std::int64_t> largest_places(const BasicTensor<T>& w, Index count) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(w.size()));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  count = std::min(count, w.size());
  std::partial_sort(order.begin(), order.begin() + count, order.end(),
                    [&](std::int64_t a, std::int64_t b) {
                      const T wa = std::abs(w[a]), wb = std::abs(w[b]);
                      return wa > wb || (wa == wb && a < b);
                    });
  order.resize(static_cast<std::size_t>(count));
  std::sort(order.begin(), order.end());
  return order;
}

/// 1 for what stays of the weights, 0 for the round(ratio · n) smallest |w| of all of them
/// together (half to even); of equal ones the last go first.
template <std::floating_point T>
std::vector<std::vector<std::int64_t>> prune_masks(const std::vector<BasicTensor<T>>& weights,
                                                   double ratio) {
  Index n = 0;
  for (const auto& w : weights) n += w.size();
  auto all = BasicTensor<T>::empty({n});
  T* at = all.data();
  for (const auto& w : weights) at = std::copy(w.begin(), w.end(), at);
  const Index dropped = static_cast<Index>(std::nearbyint(ratio * static_cast<double>(n)));
  std::vector<std::int64_t> whole(static_cast<std::size_t>(n), 0);
  for (const auto place : largest_places(all, n - dropped))
    whole[static_cast<std::size_t>(place)] = 1;
  std::vector<std::vector<std::int64_t>> masks;
  auto from = whole.begin();
  for (const auto& w : weights) {
    masks.emplace_back(from, from + w.size());
    from += w.size();
  }
  return masks;
}

/// λ Σ |c| of the coefficients of attention heads (or groups of a feed-forward layer), which the
/// model multiplies their outputs with while it is found out which of them to remove.
template <std::floating_point T>
BasicVar<T> dsee_head_loss(const BasicVar<T>& heads, const DSEEConfig& config) {
  return scale(sum(abs(heads)), static_cast<T>(config.head_loss_weight));
}
/// The round(head_prune_ratio · n) heads with the smallest |c|, in order.
template <std::floating_point T>
std::vector<std::int64_t> dsee_removed_heads(const BasicTensor<T>& heads,
                                             const DSEEConfig& config) {
  const auto mask = prune_masks(std::vector<BasicTensor<T>>{heads}, config.head_prune_ratio)[0];
  std::vector<std::int64_t> removed;
  for (std::size_t i = 0; i < mask.size(); ++i)
    if (mask[i] == 0) removed.push_back(static_cast<std::int64_t>(i));
  return removed;
}

/// DSEE: y = x (W ⊙ S₁)ᵀ + b + s · (drop(x) Aᵀ Bᵀ + drop(x) S₂ᵀ), s = alpha / r, S₂ with N values.
///
/// A: [r, in] ~ N(0, 0.02²), B: [out, r], zero, N values of S₂, zero, at the largest entries of the
/// sparse part of W (`dsee_decomposition`), of W itself, or anywhere; trained: r (in + out) + N. S₁
/// leaves out the prune_ratio smallest |W|: made with the adapter, so that a run with it is the
/// third phase of the paper. The identity at the start without pruning; merges. Source: Chen et al.
/// 2021 (arXiv:2111.00160). The decomposition ends before its rank fills
/// the layer; the code goes on and chooses places at random then. Coefficients of heads
/// (`dsee_head_loss`, `dsee_removed_heads`) belong to the attention of the model. Tensors:
/// lora_A.weight, lora_B.weight, sparse_values, sparse_index, prune_mask.
template <std::floating_point T>
class BasicDSEE {
 public:
  using Scalar = T;
  using Config = DSEEConfig;

  static Config example() {
    Config config;
    config.support = "magnitude";
    return config;
  }
  static MethodInfo info() {
    return {.peft_type = "DSEE",
            .name = "DSEE",
            .family = "low_rank",
            .paper = "arXiv:2111.00160",
            .sites = "linear",
            .parameters = "r (in + out) + num_sparse",
            .in_peft = false};
  }

  /// @throws ValueError for more sparse values than the weight has.
  BasicDSEE(const DSEEConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : path_(site.path),
        in_(site.in_features),
        out_(site.out_features),
        scaling_(static_cast<T>(config.alpha / static_cast<double>(config.rank))),
        dropout_(config.dropout),
        index_(std::make_shared<IndexTensor>()) {
    config.validate();
    const Index r = config.rank, n = config.num_sparse;
    if (n > in_ * out_)
      throw ValueError(concat("DSEE: num_sparse ", n, " of ", path_, " [", out_, ", ", in_, "]"));
    a_ = BasicParameter<T>(context.loading
                               ? BasicTensor<T>::zeros({r, in_})
                               : detail::normal_tensor<T>(context.generator, {r, in_}, 0.02));
    b_ = BasicParameter<T>(BasicTensor<T>::zeros({out_, r}));
    values_ = BasicParameter<T>(BasicTensor<T>::zeros({n}));
    index_->shape = {n, 2};
    std::vector<std::int64_t> places(static_cast<std::size_t>(n));
    std::iota(places.begin(), places.end(), std::int64_t{0});
    if (!context.loading && n > 0) places = choose(config, site, context);
    for (const auto place : places) {
      index_->values.push_back(place / in_);
      index_->values.push_back(place % in_);
    }
    if (config.prune_ratio > 0) {
      mask_ = std::make_shared<IndexTensor>();
      mask_->type = IndexTensor::Type::u8;
      mask_->shape = {out_, in_};
      mask_->values = context.loading
                          ? std::vector<std::int64_t>(static_cast<std::size_t>(out_ * in_), 1)
                          : prune(config, site, context);
    }
    after_load();
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicDSEE(const DSEEConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicDSEE(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto dropped = graft::dropout(x, dropout_);
    const auto a = tape.parameter(a_), b = tape.parameter(b_);
    BasicVar<T> y;
    if (mask_) {
      y = detail::effective_weight(base, x,
                                   [mask = mask_, root = &detail::root_of(base)](BasicTape<T>& t) {
                                     auto w = weight_of(*root).clone();
                                     for (Index i = 0; i < w.size(); ++i)
                                       if (mask->values[static_cast<std::size_t>(i)] == 0) w[i] = 0;
                                     return t.constant(std::move(w));
                                   });
      const auto h = scale(matmul(dropped, a, Transpose::no, Transpose::yes), scaling_);
      y = add(y, matmul(h, b, Transpose::no, Transpose::yes));
    } else {
      y = linear_low_rank(base, x, dropped, a, b, scaling_);
    }
    if (values_.size() == 0) return y;
    return add_sparse_matmul(y, dropped, scale(tape.parameter(values_), scaling_), pattern_);
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(4);
    list[0].name = "lora_A.weight";
    list[0].parameter = a_;
    list[1].name = "lora_B.weight";
    list[1].parameter = b_;
    list[2].name = "sparse_values";
    list[2].parameter = values_;
    list[3].name = "sparse_index";
    list[3].index = index_;
    if (mask_) {
      list.push_back(detail::named<T>("prune_mask", mask_));
    }
    return list;
  }
  /// @throws ValueError for places outside of the weight.
  void after_load() {
    auto pattern = std::make_shared<SparsePattern>();
    pattern->rows = out_;
    pattern->cols = in_;
    for (std::size_t i = 0; i + 1 < index_->values.size(); i += 2) {
      const auto row = index_->values[i], col = index_->values[i + 1];
      if (row < 0 || row >= out_ || col < 0 || col >= in_)
        throw ValueError(concat("sparse_index of ", path_, ": (", row, ", ", col, ") in [", out_,
                                ", ", in_, "]"));
      pattern->row.push_back(static_cast<std::int32_t>(row));
      pattern->col.push_back(static_cast<std::int32_t>(col));
    }
    pattern_ = std::move(pattern);
  }

 private:
  std::vector<std::int64_t> choose(const DSEEConfig& config, const LinearSiteInfo<T>& site,
                                   InitContext<T>& context) const {
    const Index n = config.num_sparse;
    if (config.support == "random") {
      auto places = context.generator.randperm(in_ * out_);
      places.resize(static_cast<std::size_t>(n));
      std::sort(places.begin(), places.end());
      return places;
    }
    const auto w = site.weight();
    if (config.support == "magnitude") return largest_places(w, n);
    const auto v = detail::normal_tensor<double>(context.generator, {1, in_}, 1);
    return largest_places(dsee_decomposition(w.template cast<double>(), config, v).sparse, n);
  }
  static std::vector<std::int64_t> prune(const DSEEConfig& config, const LinearSiteInfo<T>& site,
                                         InitContext<T>& context) {
    if (!config.global_pruning || !site.weight_at)
      return prune_masks(std::vector<BasicTensor<T>>{site.weight()}, config.prune_ratio)[0];
    const auto masks = context.shared.object("dsee.masks", [&] {
      std::vector<BasicTensor<T>> weights;
      for (const auto& [path, shape] : site.all_sites) weights.push_back(site.weight_at(path));
      return prune_masks(weights, config.prune_ratio);
    });
    for (std::size_t k = 0; k < site.all_sites.size(); ++k)
      if (site.all_sites[k].first == site.path) return (*masks)[k];
    throw ValueError(concat("DSEE: ", site.path, " is none of the adapted layers"));
  }

  std::string path_;
  Index in_, out_;
  T scaling_;
  double dropout_;
  BasicParameter<T> a_, b_, values_;
  std::shared_ptr<IndexTensor> index_, mask_;
  std::shared_ptr<const SparsePattern> pattern_;
};

using DSEE = BasicDSEE<float>;

}  // namespace graft::inline v0_1
