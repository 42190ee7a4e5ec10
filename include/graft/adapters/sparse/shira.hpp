#pragma once

#include <algorithm>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "graft/adapters/adapter.hpp"
#include "graft/adapters/method.hpp"
#include "graft/autograd/ops/sparse_matmul.hpp"

namespace graft::inline v0_1 {

/// Configuration of SHiRA, fields as PEFT's ShiraConfig.
struct SHiRAConfig {
  Index rank = 32;  ///< r: as many trained elements as LoRA of this rank has
  std::string mask_type = "random";
  std::optional<std::int64_t> random_seed = {};  ///< of the positions; null: torch's default seed
  bool fan_in_fan_out = false;
  bool init_weights = true;  ///< zeros; false: N(0, 1)
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "SHIRA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("mask_type", mask_type);
    v("random_seed", random_seed);
    v("fan_in_fan_out", fan_in_fan_out);
    v("init_weights", init_weights);
    v("target_modules", target_modules);
    select.fields(
        v,
        {.exclude_modules = false, .layers = false, .rank_pattern = false, .alpha_pattern = false});
  }
  /// @throws ValueError for a rank below one or an unknown mask.
  void validate() const {
    if (rank < 1) throw ValueError(concat("SHiRA: r ", rank, ", expected at least 1"));
    if (mask_type != "random")
      throw ValueError(concat("SHiRA: mask_type '", mask_type, "', expected random"));
  }
};

/// SHiRA: y = base(x) + x Sᵀ, S sparse with trained elements.
///
/// Trained: r (in + out) elements, at the first of a random permutation of all positions, in order
/// of rows. S is held as positions and values and never written out. The identity at the start;
/// merges. Source: Bhardwaj et al. 2024 (arXiv:2406.13175), section 3 (SHiRA-Rand). Tensors:
/// shira_weight, shira_indices [2, n].
template <std::floating_point T>
class BasicSHiRA {
 public:
  using Scalar = T;
  using Config = SHiRAConfig;

  static MethodInfo info() {
    return {.peft_type = "SHIRA",
            .name = "SHiRA",
            .family = "sparse",
            .paper = "arXiv:2406.13175",
            .sites = "linear",
            .parameters = "r (in + out)"};
  }

  /// @throws ValueError if r (in + out) is above in · out.
  BasicSHiRA(const SHiRAConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : out_((config.validate(), site.out_features)), in_(site.in_features) {
    const Index n = config.rank * (in_ + out_), all = in_ * out_;
    if (n > all)
      throw ValueError(concat("SHiRA: r ", config.rank, " means ", n, " elements of the ", all,
                              " of ", site.path));
    auto values = BasicTensor<T>::zeros({n});
    if (!config.init_weights && !context.loading) context.generator.normal(values.data(), n);
    values_ = BasicParameter<T>(std::move(values));
    positions_ = std::make_shared<IndexTensor>();
    positions_->shape = {2, n};
    positions_->type = IndexTensor::Type::i32;
    positions_->values.assign(static_cast<std::size_t>(2 * n), 0);
    if (!context.loading) {
      TorchGenerator generator;
      if (config.random_seed) generator.seed(static_cast<std::uint64_t>(*config.random_seed));
      auto order = generator.randperm(all);
      order.resize(static_cast<std::size_t>(n));
      std::sort(order.begin(), order.end());
      for (std::size_t i = 0; i < order.size(); ++i) {
        positions_->values[i] = order[i] / in_;
        positions_->values[order.size() + i] = order[i] % in_;
      }
    }
    after_load();
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicSHiRA(const SHiRAConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicSHiRA(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    return add_sparse_matmul(linear(base, x), x, x.tape().parameter(values_), pattern_);
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(2);
    list[0].name = "shira_weight";
    list[0].parameter = values_;
    list[1].name = "shira_indices";
    list[1].index = positions_;
    return list;
  }
  /// @throws ValueError if a position of the file is outside of the matrix.
  void after_load() {
    auto pattern = std::make_shared<SparsePattern>();
    pattern->rows = out_;
    pattern->cols = in_;
    const auto n = positions_->values.size() / 2;
    for (std::size_t i = 0; i < n; ++i) {
      const auto row = positions_->values[i], col = positions_->values[n + i];
      if (row < 0 || row >= out_ || col < 0 || col >= in_)
        throw ValueError(
            concat("SHiRA: position (", row, ", ", col, ") outside of [", out_, ", ", in_, "]"));
      pattern->row.push_back(static_cast<std::int32_t>(row));
      pattern->col.push_back(static_cast<std::int32_t>(col));
    }
    pattern_ = std::move(pattern);
  }

 private:
  Index out_, in_;
  BasicParameter<T> values_;
  std::shared_ptr<IndexTensor> positions_;
  std::shared_ptr<const SparsePattern> pattern_;
};

using SHiRA = BasicSHiRA<float>;

}  // namespace graft::inline v0_1
