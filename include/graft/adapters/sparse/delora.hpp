#pragma once

#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "graft/adapters/adapter.hpp"
#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/target_match.hpp"

namespace graft::inline v0_1 {

/// Configuration of DeLoRA, fields as PEFT's DeloraConfig.
struct DeLoRAConfig {
  Index rank = 8;
  double lambda = 15;         ///< bound of ‖ΔW‖, trained
  double module_dropout = 0;  ///< on the input of the branch, while training
  std::map<std::string, ConfigValue> lambda_pattern = {};
  bool init_weights = true;  ///< B = 0; false: B random too
  std::string bias = "none";
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "DELORA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("delora_lambda", lambda);
    v("module_dropout", module_dropout);
    v("lambda_pattern", lambda_pattern);
    v("init_weights", init_weights);
    v("bias", bias);
    v("target_modules", target_modules);
    select.fields(v, {.alpha_pattern = false});
  }
  /// @throws ValueError for a rank below one.
  void validate() const {
    if (rank < 1) throw ValueError(concat("DeLoRA: rank ", rank, ", expected at least 1"));
  }
};

/// DeLoRA: y = base(x) + (drop(x) ⊙ n) Aᵀ diag(c) Bᵀ, c_i = λ / (r max(‖a_i‖, 10⁻⁴) max(‖b_i‖,
/// 10⁻⁴)).
///
/// A: [r, in], rows a_i; B: [out, r], columns b_i; λ: [1]; n: [in], the norms of W's columns,
/// frozen and saved. Trained: r (in + out) + 1. The identity at the start; merges. Source: Bini et
/// al. 2025 (arXiv:2503.18225), section 3; column norms as in PEFT. Tensors: delora_A, delora_B,
/// delora_lambda, delora_w_norm.
template <std::floating_point T>
class BasicDeLoRA {
 public:
  using Scalar = T;
  using Config = DeLoRAConfig;

  static MethodInfo info() {
    return {.peft_type = "DELORA",
            .name = "DeLoRA",
            .family = "sparse",
            .paper = "arXiv:2503.18225",
            .sites = "linear",
            .parameters = "r (in + out) + 1"};
  }

  BasicDeLoRA(const DeLoRAConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : rank_(config.rank), dropout_(config.module_dropout) {
    config.validate();
    const Index in = site.in_features, out = site.out_features;
    auto a = BasicTensor<T>::zeros({rank_, in}), b = BasicTensor<T>::zeros({out, rank_});
    if (!context.loading) {
      a = detail::kaiming_uniform_tensor<T>(context.generator, a.shape(), in);
      if (!config.init_weights)
        b = detail::kaiming_uniform_tensor<T>(context.generator, b.shape(), rank_);
    }
    const auto own = pattern_value(config.lambda_pattern, site.path);
    auto norms = BasicTensor<T>::zeros({in});
    const auto w = site.weight();
    for (Index o = 0; o < out; ++o)
      for (Index i = 0; i < in; ++i) norms[i] += w(o, i) * w(o, i);
    for (T& n : norms) n = std::sqrt(n);
    a_ = BasicParameter<T>(std::move(a));
    b_ = BasicParameter<T>(std::move(b));
    lambda_ = BasicParameter<T>(
        BasicTensor<T>::full({1}, static_cast<T>(own ? own->number() : config.lambda)));
    norms_ = BasicParameter<T>(std::move(norms), false);
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicDeLoRA(const DeLoRAConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicDeLoRA(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto a = tape.parameter(a_), b = tape.parameter(b_);
    const auto length = [&](const BasicVar<T>& rows) {
      // √(‖·‖² + 0) has no slope at zero: the bound acts on the square.
      const T low = static_cast<T>(1e-8);
      return reshape(sqrt(clamp(sum_axis(square(rows), -1), low, std::numeric_limits<T>::max())),
                     {rank_});
    };
    const auto c = div(scale(tape.parameter(lambda_), T{1} / static_cast<T>(rank_)),
                       mul(length(a), length(transpose(b))));
    const auto h = matmul(mul(graft::dropout(x, dropout_), tape.parameter(norms_)), a,
                          Transpose::no, Transpose::yes);
    return add(linear(base, x), matmul(mul(h, c), b, Transpose::no, Transpose::yes));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    list.push_back({.name = "delora_A", .parameter = a_, .index = {}, .file_shape = {}});
    list.push_back({.name = "delora_B", .parameter = b_, .index = {}, .file_shape = {}});
    list.push_back({.name = "delora_lambda", .parameter = lambda_, .index = {}, .file_shape = {}});
    list.push_back({.name = "delora_w_norm", .parameter = norms_, .index = {}, .file_shape = {}});
    return list;
  }

 private:
  Index rank_;
  double dropout_;
  BasicParameter<T> a_, b_, lambda_, norms_;
};

using DeLoRA = BasicDeLoRA<float>;

}  // namespace graft::inline v0_1
