#pragma once

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/adapted.hpp"
#include "graft/adapters/low_rank/lora_factors.hpp"

namespace graft::inline v0_1 {

/// `use_bdlora` of LoRA's configuration, names as in PEFT.
struct BDLoRAConfig {
  std::vector<std::string> block_a = {};  ///< A is block diagonal where the path has one of these
  std::vector<std::string> block_b = {};  ///< the same of B
  Index blocks = 1;
  bool strict = true;  ///< every site must be in one of the lists

  template <class Visitor>
  void fields(Visitor& v) {
    v("target_modules_bd_a", block_a);
    v("target_modules_bd_b", block_b);
    v("nblocks", blocks);
    v("match_strict", strict);
  }
};

/// BD-LoRA: LoRA with one block-diagonal factor, y = base(x) + s · drop(x) Aᵀ Bᵀ.
///
/// With n blocks, A = diag(A_1, …, A_n), A_i [rank / n, in / n], kept as [rank, in / n], or B =
/// diag(B_1, …, B_n), kept as [out, rank / n]; trained: rank (in / n + out) or rank (in + out / n).
/// A server that shards the layer n ways then needs no exchange for the adapter. The identity at
/// the start (B = 0; blocks of A kaiming-uniform of in / n inputs with slope 0, as in PEFT);
/// merges. Source: BD-LoRA of Hugging Face PEFT (`use_bdlora`). Tensors: lora_A.weight,
/// lora_B.weight.
template <std::floating_point T>
class BasicBDLoRA {
 public:
  using Scalar = T;
  using Config = LoRAConfig;

  /// @throws ValueError if the path is in both lists, or in none of them and that is strict, or
  /// the sizes are no multiples of the number of blocks.
  BasicBDLoRA(const LoRAConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : factors_("use_bdlora", config, site, context) {
    const auto options = nested_config<BDLoRAConfig>("use_bdlora", config.use_bdlora);
    const auto listed = [&](const std::vector<std::string>& names) {
      return std::any_of(names.begin(), names.end(), [&](const std::string& name) {
        return site.path.find(name) != std::string::npos;
      });
    };
    const bool in_a = listed(options.block_a), in_b = listed(options.block_b);
    if (in_a && in_b)
      throw ValueError(
          concat("BD-LoRA: ", site.path, " is in both lists of block-diagonal factors"));
    if (!in_a && !in_b && options.strict)
      throw ValueError(concat("BD-LoRA: ", site.path,
                              " is in neither list of block-diagonal factors; list it, or set "
                              "match_strict to false"));
    if (!in_a && !in_b) return;
    if (factors_.bias)
      throw ValueError(concat("BD-LoRA: lora_bias does not exist with blocks, at ", site.path));
    const Index n = options.blocks, r = factors_.rank, wide = in_a ? site.in_features : r,
                tall = in_a ? r : site.out_features;
    if (n < 1 || wide % n != 0 || tall % n != 0)
      throw ValueError(concat("BD-LoRA: ", n, " blocks for a factor [", tall, ", ", wide, "] of ",
                              site.path, ", expected a divisor of both"));
    auto value = BasicTensor<T>::zeros({tall, wide / n});
    if (in_a && !context.loading)
      value = detail::kaiming_uniform_tensor<T>(context.generator, {tall, wide / n}, wide / n, 0);
    (in_a ? factors_.a : factors_.b) = BasicParameter<T>(value);
    auto& positions = in_a ? a_positions_ : b_positions_;
    for (Index i = 0; i < tall; ++i)
      for (Index j = 0; j < wide / n; ++j)
        positions.push_back(i * wide + i / (tall / n) * (wide / n) + j);
  }
  /// For a layer of one's own, called `path`; values are drawn from `seed`.
  template <Linear L>
  BasicBDLoRA(const LoRAConfig& config, const L& base, std::string path, std::uint64_t seed = 0)
      : BasicBDLoRA(config, named(site_info(base), std::move(path)),
                    StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    auto a = tape.parameter(factors_.a), b = tape.parameter(factors_.b);
    if (!a_positions_.empty()) a = scatter(a, a_positions_, {factors_.rank, base.in_features()});
    if (!b_positions_.empty()) b = scatter(b, b_positions_, {base.out_features(), factors_.rank});
    return factors_.with_bias(
        linear_low_rank(base, x, graft::dropout(x, factors_.dropout), a, b, factors_.scaling));
  }
  std::vector<AdapterTensor<T>> tensors() const { return factors_.tensors(); }

 private:
  static LinearSiteInfo<T> named(LinearSiteInfo<T> site, std::string path) {
    site.path = std::move(path);
    return site;
  }
  LoRAFactors<T> factors_;
  std::vector<Index> a_positions_, b_positions_;  ///< of the elements in the whole factor
};

using BDLoRA = BasicBDLoRA<float>;

}  // namespace graft::inline v0_1
