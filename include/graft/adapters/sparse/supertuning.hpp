#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <optional>
#include <utility>
#include <vector>

#include "graft/adapters/adapter.hpp"
#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"
#include "graft/autograd/ops/sparse_matmul.hpp"

namespace graft::inline v0_1 {

/// Configuration of super-tuning, fields as PEFT's SupertuningConfig.
struct SupertuningConfig {
  double sparsity = 0.99;                ///< share of the elements that stay frozen
  bool select_top = true;                ///< the largest elements; false: the smallest
  std::optional<Index> rank = {};        ///< r of LoRA factors beside them (Supra); null: none
  std::optional<double> alpha = {};      ///< scaling = alpha / r; null: 2 r
  double dropout = 0;                    ///< on the input of the factors, while training
  bool init_weights = true;              ///< zeros; false: N(0, 1), and B drawn
  bool save_precomputed_indices = true;  ///< false: the positions are found again from W
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "SUPERTUNING";

  template <class Visitor>
  void fields(Visitor& v) {
    v("sparsity", sparsity);
    v("select_top", select_top);
    v("r", rank);
    v("lora_alpha", alpha);
    v("lora_dropout", dropout);
    v("init_weights", init_weights);
    v("save_precomputed_indices", save_precomputed_indices);
    v("target_modules", target_modules);
    select.fields(
        v,
        {.exclude_modules = false, .layers = false, .rank_pattern = false, .alpha_pattern = false});
  }
  /// @throws ValueError for numbers out of range, or an alpha without r.
  void validate() const {
    if (!(sparsity >= 0 && sparsity < 1))
      throw ValueError(concat("Super-tuning: sparsity ", sparsity, ", expected in [0, 1)"));
    if (rank && *rank < 1)
      throw ValueError(concat("Super-tuning: r ", *rank, ", expected at least 1 or null"));
    if (!rank && alpha) throw ValueError("Super-tuning: lora_alpha without r");
    if (!(dropout >= 0 && dropout < 1))
      throw ValueError(concat("Super-tuning: lora_dropout ", dropout, ", expected in [0, 1)"));
  }
};

/// Super-tuning: y = base(x) + x Sᵀ, S sparse with trained elements where W has its largest (or
/// smallest) magnitudes; Supra adds LoRA: + (alpha / r) drop(x) Aᵀ Bᵀ.
///
/// Trained: ⌊in · out · (1 − sparsity)⌋ elements, + r (in + out). S is held as positions and values
/// and never written out. The identity at the start; merges. Source: arXiv:2607.09287, in the form
/// of PEFT; positions in order of magnitude, equal ones by position (torch leaves their order
/// open). Tensors: supertuning_values, supertuning_indices [n] (flat), supertuning_lora_A.weight,
/// supertuning_lora_B.weight.
template <std::floating_point T>
class BasicSupertuning {
 public:
  using Scalar = T;
  using Config = SupertuningConfig;

  static Config example() {
    Config config;
    config.rank = 4;
    return config;
  }
  static MethodInfo info() {
    return {.peft_type = "SUPERTUNING",
            .name = "Super-tuning",
            .family = "sparse",
            .paper = "arXiv:2607.09287",
            .sites = "linear",
            .parameters = "; in out (1 - sparsity) + r (in + out)"};
  }

  /// @throws ValueError if the sparsity leaves no element.
  BasicSupertuning(const SupertuningConfig& config, const LinearSiteInfo<T>& site,
                   InitContext<T>& context)
      : out_((config.validate(), site.out_features)),
        in_(site.in_features),
        save_positions_(config.save_precomputed_indices),
        dropout_(config.dropout) {
    const Index all = in_ * out_;
    const auto n = static_cast<Index>(static_cast<double>(all) * (1 - config.sparsity));
    if (n < 1)
      throw ValueError(concat("Super-tuning: sparsity ", config.sparsity, " leaves none of the ",
                              all, " elements of ", site.path));
    const bool draw = !context.loading;
    auto values = BasicTensor<T>::zeros({n});
    if (draw && !config.init_weights) context.generator.normal(values.data(), n);
    values_ = BasicParameter<T>(std::move(values));
    positions_ = std::make_shared<IndexTensor>();
    positions_->shape = {n};
    positions_->type = IndexTensor::Type::i32;
    if (draw || !save_positions_)
      positions_->values = strongest(site.weight(), n, config.select_top);
    else
      positions_->values.assign(static_cast<std::size_t>(n), 0);
    after_load();
    if (!config.rank) return;
    const Index r = *config.rank;
    scaling_ = static_cast<T>(config.alpha.value_or(2.0 * static_cast<double>(r)) /
                              static_cast<double>(r));
    auto a = BasicTensor<T>::zeros({r, in_}), b = BasicTensor<T>::zeros({out_, r});
    if (draw) {
      auto& rng = context.generator;
      // PEFT draws both as layers before it draws the values that stay.
      detail::kaiming_uniform_tensor<T>(rng, a.shape(), in_);
      detail::kaiming_uniform_tensor<T>(rng, b.shape(), r);
      a = detail::kaiming_uniform_tensor<T>(rng, a.shape(), in_);
      if (!config.init_weights) b = detail::kaiming_uniform_tensor<T>(rng, b.shape(), r);
    }
    a_ = BasicParameter<T>(std::move(a));
    b_ = BasicParameter<T>(std::move(b));
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicSupertuning(const SupertuningConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicSupertuning(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto y = a_ ? linear_low_rank(base, x, graft::dropout(x, dropout_), tape.parameter(a_),
                                        tape.parameter(b_), scaling_)
                      : linear(base, x);
    return add_sparse_matmul(y, x, tape.parameter(values_), pattern_);
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(a_ ? 4 : 2);
    list[0].name = "supertuning_values";
    list[0].parameter = values_;
    list[1].name = "supertuning_indices";
    list[1].index = positions_;
    list[1].saved = save_positions_;
    if (a_) {
      list[2].name = "supertuning_lora_A.weight";
      list[2].parameter = a_;
      list[3].name = "supertuning_lora_B.weight";
      list[3].parameter = b_;
    }
    return list;
  }
  /// @throws ValueError if a position of the file is outside of the matrix.
  void after_load() {
    auto pattern = std::make_shared<SparsePattern>();
    pattern->rows = out_;
    pattern->cols = in_;
    for (const auto position : positions_->values) {
      if (position < 0 || position >= in_ * out_)
        throw ValueError(
            concat("Super-tuning: position ", position, " outside of [", out_, ", ", in_, "]"));
      pattern->row.push_back(static_cast<std::int32_t>(position / in_));
      pattern->col.push_back(static_cast<std::int32_t>(position % in_));
    }
    pattern_ = std::move(pattern);
  }

 private:
  /// Positions of the n largest (or smallest) magnitudes, the most extreme first.
  static std::vector<std::int64_t> strongest(const BasicTensor<T>& w, Index n, bool largest) {
    std::vector<std::int64_t> order(static_cast<std::size_t>(w.size()));
    std::iota(order.begin(), order.end(), std::int64_t{0});
    const auto before = [&](std::int64_t i, std::int64_t j) {
      const T a = std::abs(w[static_cast<Index>(i)]), b = std::abs(w[static_cast<Index>(j)]);
      if (a != b) return largest ? a > b : a < b;
      return i < j;
    };
    std::partial_sort(order.begin(), order.begin() + n, order.end(), before);
    order.resize(static_cast<std::size_t>(n));
    return order;
  }

  Index out_, in_;
  bool save_positions_;
  double dropout_;
  T scaling_ = 1;
  BasicParameter<T> values_, a_, b_;
  std::shared_ptr<IndexTensor> positions_;
  std::shared_ptr<const SparsePattern> pattern_;
};

using Supertuning = BasicSupertuning<float>;

}  // namespace graft::inline v0_1
