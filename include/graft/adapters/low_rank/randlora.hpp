#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/low_rank/vera.hpp"
#include "graft/adapters/method.hpp"
#include "graft/autograd/ops/frozen_matmul.hpp"

namespace graft::inline v0_1 {

/// Configuration of RandLoRA, fields as PEFT's RandLoraConfig.
struct RandLoRAConfig {
  Index rank = 32;                        ///< r, of each random basis
  double alpha = 640;                     ///< randlora_alpha, scaling = alpha / r
  std::uint64_t projection_prng_key = 0;  ///< seed of the shared bases
  bool save_projection = true;
  bool sparse = false;       ///< bases of −1, 0, 1, two thirds zeros
  bool very_sparse = false;  ///< share of ones 1 / √(smaller side)
  double dropout = 0;        ///< on the input of the branch, while training
  bool init_weights = true;  ///< λ = 0; false: N(0, 1)
  bool fan_in_fan_out = false;
  std::string bias = "none";
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "RANDLORA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("randlora_alpha", alpha);
    v("projection_prng_key", projection_prng_key);
    v("save_projection", save_projection);
    v("sparse", sparse);
    v("very_sparse", very_sparse);
    v("randlora_dropout", dropout);
    v("init_weights", init_weights);
    v("fan_in_fan_out", fan_in_fan_out);
    v("bias", bias);
    v("target_modules", target_modules);
    select.fields(v, {.exclude_modules = false, .rank_pattern = false, .alpha_pattern = false});
  }
  /// @throws ValueError for a rank below one.
  void validate() const {
    if (rank < 1) throw ValueError(concat("RandLoRA: rank ", rank, ", expected at least 1"));
  }
};

namespace detail {

/// Rounded to the 8 significant bits of bfloat16, ties to even.
inline float to_bfloat16(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  return std::bit_cast<float>((bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u);
}

/// Divided by the standard deviation of all elements, in bfloat16 arithmetic if `half`.
inline void divide_by_deviation(std::vector<float>& values, bool half) {
  double sum = 0, squares = 0;
  for (float v : values) sum += static_cast<double>(v);
  const double mean = sum / static_cast<double>(values.size());
  for (float v : values)
    squares += (static_cast<double>(v) - mean) * (static_cast<double>(v) - mean);
  float deviation = static_cast<float>(std::sqrt(squares / static_cast<double>(values.size() - 1)));
  if (half) deviation = to_bfloat16(deviation);
  for (float& v : values) v = half ? to_bfloat16(v / deviation) : v / deviation;
}

/// U(±1 / √fan_in) in bfloat16, as torch draws it: in float, then rounded; what is rounded up to
/// the bound becomes the other one.
inline void bfloat16_uniform(TorchGenerator& generator, float* values, Index count, Index fan_in) {
  const double bound = kaiming_uniform_bound(fan_in, std::sqrt(5.0));
  generator.uniform(values, count, -bound, bound);
  const float high = to_bfloat16(static_cast<float>(bound));
  for (Index i = 0; i < count; ++i) {
    values[i] = to_bfloat16(values[i]);
    if (values[i] == high) values[i] = -high;
  }
}

/// Row ρ n + k of the result is λ[ρ, k] · a[ρ] ⊙ γ[k]. λ: [r, n], a: [r, ≥ m] (a constant), γ: [n,
/// m], result [r n, m].
template <std::floating_point T>
BasicVar<T> scaled_bases(const BasicTensor<T>& a, const BasicVar<T>& lambda,
                         const BasicVar<T>& gamma) {
  const Index r = lambda.rows(), n = lambda.cols(), m = gamma.cols(), stride = a.cols();
  auto y = BasicTensor<T>::empty({r * n, m});
  const auto vl = lambda.value(), vg = gamma.value();
  for (Index p = 0; p < r; ++p)
    for (Index k = 0; k < n; ++k) {
      const T* from = a.data() + p * stride;
      const T* g = vg.data() + k * m;
      T* to = y.data() + (p * n + k) * m;
      const T l = vl(p, k);
      for (Index j = 0; j < m; ++j) to[j] = l * from[j] * g[j];
    }
  return lambda.tape().record(
      std::move(y), lambda.requires_grad() || gamma.requires_grad(),
      [=, gl = lambda.grad_ref(), gg = gamma.grad_ref()](const BasicTensor<T>& dy) {
        T* dl = gl ? gl.accumulator() : nullptr;
        T* dg = gg ? gg.accumulator() : nullptr;
        for (Index p = 0; p < r; ++p)
          for (Index k = 0; k < n; ++k) {
            const T* from = a.data() + p * stride;
            const T* g = vg.data() + k * m;
            const T* d = dy.data() + (p * n + k) * m;
            T slope = 0;
            for (Index j = 0; j < m; ++j) {
              slope += d[j] * from[j] * g[j];
              if (dg != nullptr) dg[k * m + j] += d[j] * from[j] * vl(p, k);
            }
            if (dl != nullptr) dl[p * n + k] += slope;
          }
      });
}

}  // namespace detail

/// RandLoRA: ΔW = s Σ of n random bases of rank r, scaled by two small trained tensors, s = alpha /
/// r; with mn and mx the smaller and the larger side of W, n = ⌈mn / r⌉ and P = B' A' [mx, mn],
/// ΔW = s P if in = mn, else s Pᵀ.
///
/// A: [r, 1, largest mn] and B: [largest mx, largest n, r], frozen, random, one pair for the model;
/// λ: [r, n], γ: [n, mn], trained: n (r + mn). A' has the rows λ[ρ, k] · A[ρ] ⊙ γ[k] in the order
/// (ρ, k), B' the columns of B in the order (k, ρ): PEFT pairs the places of these two lists, not
/// equal (ρ, k), and so does this. The identity at the start (λ = 0); merges. Source: Albert et al.
/// 2025 (arXiv:2502.00987), eq. 4. Without save_projection the bases are drawn from
/// projection_prng_key in bfloat16 as PEFT does on a CPU that has it. Tensors: randlora_lambda,
/// randlora_gamma, base_model.randlora_A, base_model.randlora_B. PEFT's files repeat these two in
/// every layer; that is read, and not written: PEFT warns of missing keys then, but its layers
/// share the two that there are.
template <std::floating_point T>
class BasicRandLoRA {
 public:
  using Scalar = T;
  using Config = RandLoRAConfig;

  static MethodInfo info() {
    return {.peft_type = "RANDLORA",
            .name = "RandLoRA",
            .family = "low_rank",
            .paper = "arXiv:2502.00987",
            .sites = "linear",
            .parameters = "n (r + min(in, out)), n = ceil(min(in, out) / r)"};
  }

  BasicRandLoRA(const RandLoRAConfig& config, const LinearSiteInfo<T>& site,
                InitContext<T>& context)
      : config_((config.validate(), config)), in_(site.in_features), out_(site.out_features) {
    const Index r = config.rank;
    smaller_ = std::min(in_, out_);
    larger_ = std::max(in_, out_);
    bases_ = (smaller_ + r - 1) / r;
    const Shape size = detail::largest_site(site);
    const Index width = std::min(size[0], size[1]), height = std::max(size[0], size[1]);
    all_bases_ = (width + r - 1) / r;
    TorchGenerator generator(config.projection_prng_key);
    if (config.sparse || config.very_sparse) {
      const double share =
          1 / (2 * (config.very_sparse ? std::sqrt(static_cast<double>(width)) : 3.0));
      const auto draw = [&](Index count) {
        std::vector<float> v(static_cast<std::size_t>(count));
        generator.uniform(v.data(), count, 0, 1);
        for (float& e : v)
          e = static_cast<double>(e) < share       ? -1.0f
              : static_cast<double>(e) > 1 - share ? 1.0f
                                                   : 0.0f;
        detail::divide_by_deviation(v, false);
        return v;
      };
      share_bases(context, width, height, draw, draw);
    } else {
      const auto draw_a = [&](Index count) {
        std::vector<float> v(static_cast<std::size_t>(count));
        detail::bfloat16_uniform(generator, v.data(), count, width);
        detail::divide_by_deviation(v, true);
        return v;
      };
      const auto draw_b = [&](Index count) {
        std::vector<float> v(static_cast<std::size_t>(count));
        std::vector<float> one(static_cast<std::size_t>(height * r));
        for (Index k = 0; k < all_bases_; ++k) {
          detail::bfloat16_uniform(generator, one.data(), height * r, r);
          for (Index i = 0; i < height; ++i)
            std::copy_n(one.begin() + i * r, r, v.begin() + (i * all_bases_ + k) * r);
        }
        detail::divide_by_deviation(v, true);
        return v;
      };
      share_bases(context, width, height, draw_a, draw_b);
    }
    auto lambda = BasicTensor<T>::zeros({r, bases_});
    if (!context.loading) {
      const auto drawn = detail::normal_tensor<T>(context.generator, {r, bases_}, 1);
      if (!config.init_weights) lambda = drawn;
    }
    const Index divisor = config.init_weights ? std::max(bases_, smaller_) : larger_;
    lambda_ = BasicParameter<T>(lambda);
    gamma_ =
        BasicParameter<T>(BasicTensor<T>::full({bases_, smaller_}, T{1} / static_cast<T>(divisor)));
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicRandLoRA(const RandLoRAConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicRandLoRA(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const Index r = config_.rank;
    const T s = static_cast<T>(config_.alpha / static_cast<double>(r));
    const auto rows =
        detail::scaled_bases(a_.value(), tape.parameter(lambda_), tape.parameter(gamma_));
    const auto columns = b_.value().reshape({b_.shape()[0], all_bases_ * r});
    const auto dropped = graft::dropout(x, config_.dropout);
    BasicVar<T> delta;
    if (in_ == smaller_)
      delta = frozen_matmul(matmul(dropped, rows, Transpose::no, Transpose::yes), columns, larger_,
                            bases_ * r, Transpose::yes);
    else
      delta = matmul(frozen_matmul(dropped, columns, larger_, bases_ * r), rows);
    return add(linear(base, x), scale(delta, s));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(2);
    list[0].name = "randlora_lambda";
    list[0].parameter = lambda_;
    list[1].name = "randlora_gamma";
    list[1].parameter = gamma_;
    for (const bool site : {false, true})
      for (const bool first : {true, false}) {
        AdapterTensor<T> t;
        t.name = first ? "randlora_A" : "randlora_B";
        t.parameter = first ? a_ : b_;
        t.saved = config_.save_projection;
        t.alias = site;
        if (first) t.file_shape = {a_.shape()[0], 1, a_.shape()[1]};
        if (!site) t.scope = AdapterTensor<T>::Scope::model;
        list.push_back(std::move(t));
      }
    return list;
  }

 private:
  template <class DrawA, class DrawB>
  void share_bases(InitContext<T>& context, Index width, Index height, DrawA&& draw_a,
                   DrawB&& draw_b) {
    const Index r = config_.rank;
    a_ = context.shared.get(
        "randlora_A",
        [&] {
          return BasicTensor<T>::from(draw_a(r * width), {r, width});
        },
        false);
    b_ = context.shared.get(
        "randlora_B",
        [&] {
          return BasicTensor<T>::from(draw_b(height * all_bases_ * r), {height, all_bases_, r});
        },
        false);
  }

  RandLoRAConfig config_;
  Index in_, out_, smaller_ = 0, larger_ = 0, bases_ = 0, all_bases_ = 0;
  BasicParameter<T> a_, b_, lambda_, gamma_;
};

using RandLoRA = BasicRandLoRA<float>;

}  // namespace graft::inline v0_1
