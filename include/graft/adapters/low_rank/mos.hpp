#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/low_rank/shared_type.hpp"
#include "graft/adapters/method.hpp"

namespace graft::inline v0_1 {

/// Configuration of MoS.
struct MoSConfig {
  Index rank = 8;
  double alpha = 16;
  double dropout = 0;           ///< on the input of the branch, while training; the original: 0.1
  Index equivalent_rank = 2;    ///< the pools are as large as LoRAs of this rank
  Index private_rank = 1;       ///< ranks of shards that only one layer uses
  Index shards_per_vector = 4;  ///< divides in and out
  bool tie_pairs = false;       ///< one table of indices for A and B
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "MOS";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("lora_alpha", alpha);
    v("lora_dropout", dropout);
    v("equivalent_rank", equivalent_rank);
    v("private_rank", private_rank);
    v("shards_per_vector", shards_per_vector);
    v("tie_pairs", tie_pairs);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for ranks that do not fit.
  void validate() const {
    if (rank < 1 || equivalent_rank < 1 || shards_per_vector < 1 || private_rank < 0 ||
        private_rank > std::min(rank, equivalent_rank))
      throw ValueError(concat("MoS: r ", rank, ", equivalent_rank ", equivalent_rank,
                              ", private_rank ", private_rank, ", shards_per_vector ",
                              shards_per_vector, ", expected positive and private the smallest"));
  }
};

/// Shards of layer k of L: the first (r − p) l of a permutation of the shared ones, then p l of its
/// own.
inline std::vector<std::int64_t> mos_indices(const MoSConfig& config, Index layer, Index layers,
                                             const std::vector<std::int64_t>& permutation) {
  const Index l = config.shards_per_vector, p = config.private_rank,
              shared = (config.equivalent_rank - p) * layers * l;
  std::vector<std::int64_t> list(permutation.begin(), permutation.begin() + (config.rank - p) * l);
  for (Index i = 0; i < p * l; ++i) list.push_back(shared + layer * p * l + i);
  return list;
}

/// MoS: LoRA whose rows of A and columns of B are put together from shards of pools that all layers
/// of a type share, by fixed random indices; some shards belong to one layer.
///
/// Pools: [e L l, in/l] ~ U(±1/√in) and [e L l, out/l], zero; indices [r l]; trained for a type: e
/// L (in + out), whatever the rank. Row j of A is the shards I_A[j l .. j l + l − 1] one after the
/// other, column j of B likewise. The identity at the start; merges. Source: Wang et al. 2024
/// (arXiv:2410.00938), section 3. Tensors: shared.TYPE.mos_pool_A, mos_pool_B; mos_index_A,
/// mos_index_B.
template <std::floating_point T>
class BasicMoS {
 public:
  using Scalar = T;
  using Config = MoSConfig;

  static Config example() {
    Config config;
    config.equivalent_rank = 8;
    return config;
  }
  static MethodInfo info() {
    return {.peft_type = "MOS",
            .name = "MoS",
            .family = "low_rank",
            .paper = "arXiv:2410.00938",
            .sites = "linear",
            .parameters = "; e (in + out) a layer, in pools of a kind",
            .in_peft = false};
  }

  /// @throws ValueError for sizes that do not split into shards, layers of one type with different
  /// shapes, or more shards a layer than there are.
  BasicMoS(const MoSConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : type_((config.validate(), site.name())),
        rank_(config.rank),
        shards_(config.shards_per_vector),
        scaling_(static_cast<T>(config.alpha / static_cast<double>(config.rank))),
        dropout_(config.dropout) {
    const auto [number, count] = detail::place_in_type(site);
    const Index l = shards_, in = site.in_features, out = site.out_features,
                n = config.equivalent_rank * count * l,
                shared = (config.equivalent_rank - config.private_rank) * count * l;
    if (in % l != 0 || out % l != 0)
      throw ValueError(concat("MoS: shards_per_vector ", l, " of ", site.path, " [", out, ", ", in,
                              "], expected a divisor of both"));
    if ((rank_ - config.private_rank) * l > shared)
      throw ValueError(concat("MoS: r ", rank_, " needs more shared shards than the ", shared,
                              " of ", count, " layers"));
    pool_a_ = context.shared.get("mos." + type_ + ".A", [&] {
      auto pool = BasicTensor<T>::zeros({n, in / l});
      const double bound = 1 / std::sqrt(static_cast<double>(in));
      if (!context.loading) context.generator.uniform(pool.data(), pool.size(), -bound, bound);
      return pool;
    });
    pool_b_ = context.shared.get("mos." + type_ + ".B", [&] {
      return BasicTensor<T>::zeros({n, out / l});
    });
    if (pool_a_.shape() != Shape{n, in / l} || pool_b_.shape() != Shape{n, out / l})
      throw ValueError(concat("MoS: ", site.path, " [", out, ", ", in,
                              "] has another shape than others called ", type_,
                              "; target_modules takes names of layers of one shape"));
    index_a_ = table();
    index_b_ = table();
    if (context.loading) return;
    const auto draw = [&, k = number, layers = count] {
      return mos_indices(config, k, layers, context.generator.randperm(shared));
    };
    index_a_->values = draw();
    index_b_->values = config.tie_pairs ? index_a_->values : draw();
  }

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto a = gather_rows(tape.parameter(pool_a_), index_a_->values),
               b = gather_rows(tape.parameter(pool_b_), index_b_->values);
    return linear_low_rank(base, x, graft::dropout(x, dropout_),
                           reshape(a, {rank_, shards_ * a.cols()}),
                           transpose(reshape(b, {rank_, shards_ * b.cols()})), scaling_);
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    list.push_back(detail::type_tensor(type_, "mos_pool_A", pool_a_));
    list.push_back(detail::type_tensor(type_, "mos_pool_B", pool_b_));
    list.push_back(detail::named<T>("mos_index_A", index_a_));
    list.push_back(detail::named<T>("mos_index_B", index_b_));
    return list;
  }

 private:
  std::shared_ptr<IndexTensor> table() const {
    auto index = std::make_shared<IndexTensor>();
    index->shape = {rank_ * shards_};
    index->values.assign(static_cast<std::size_t>(rank_ * shards_), 0);
    return index;
  }

  std::string type_;
  Index rank_, shards_;
  T scaling_;
  double dropout_;
  BasicParameter<T> pool_a_, pool_b_;
  std::shared_ptr<IndexTensor> index_a_, index_b_;
};

using MoS = BasicMoS<float>;

}  // namespace graft::inline v0_1
