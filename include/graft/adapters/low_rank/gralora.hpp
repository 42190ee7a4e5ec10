#pragma once

#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"
#include "graft/autograd/ops/block_matmul.hpp"

namespace graft::inline v0_1 {

/// Configuration of GraLoRA, fields as PEFT's GraloraConfig.
struct GraLoRAConfig {
  Index rank = 32;
  Index hybrid_rank = 0;     ///< hybrid_r, of an ordinary LoRA beside the blocks
  double alpha = 64;         ///< scaling = alpha / (r + hybrid_r)
  Index blocks = 2;          ///< gralora_k, along each side of W
  double dropout = 0;        ///< on the input of the branches, while training
  bool init_weights = true;  ///< B = 0; false: B random too
  bool fan_in_fan_out = false;
  std::string bias = "none";
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "GRALORA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("hybrid_r", hybrid_rank);
    v("alpha", alpha);
    v("gralora_k", blocks);
    v("gralora_dropout", dropout);
    v("init_weights", init_weights);
    v("fan_in_fan_out", fan_in_fan_out);
    v("bias", bias);
    v("target_modules", target_modules);
    select.fields(v, {.exclude_modules = false, .rank_pattern = false, .alpha_pattern = false});
  }
  /// @throws ValueError for sizes that cannot be.
  void validate() const {
    if (rank < 1 || hybrid_rank < 0 || blocks < 1)
      throw ValueError(concat("GraLoRA: r ", rank, ", hybrid_r ", hybrid_rank, " and gralora_k ",
                              blocks, ", expected at least 1, 0 and 1"));
    if (rank % blocks != 0)
      throw ValueError(concat("GraLoRA: gralora_k ", blocks, " does not divide r ", rank));
  }
};

/// GraLoRA: W in k × k blocks with a LoRA of rank r / k each: ΔW_{jn} = s (A_n[:, J] B_j[N, :])ᵀ
/// with the columns J = [jσ, (j+1)σ) and the rows N = [nσ, (n+1)σ), σ = r / k, s = alpha / (r +
/// hybrid_r); hybrid: plus s B_g A_g.
///
/// A: [k, in / k, r], B: [k, r, out / k], A_g: [h, in], B_g: [out, h]; trained: (r + h) (in + out).
/// The identity at the start; merges. Source: Jung et al. 2025 (arXiv:2505.20355), eq. 9. Tensors:
/// gralora_A, gralora_B, gralora_A_general.weight, gralora_B_general.weight.
template <std::floating_point T>
class BasicGraLoRA {
 public:
  using Scalar = T;
  using Config = GraLoRAConfig;

  static MethodInfo info() {
    return {.peft_type = "GRALORA",
            .name = "GraLoRA",
            .family = "low_rank",
            .paper = "arXiv:2505.20355",
            .sites = "linear",
            .parameters = "(r + hybrid_r) (in + out)"};
  }

  /// @throws ValueError if k does not divide in and out.
  BasicGraLoRA(const GraLoRAConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : config_((config.validate(), config)) {
    const Index k = config.blocks, r = config.rank, h = config.hybrid_rank, in = site.in_features,
                out = site.out_features;
    if (in % k != 0 || out % k != 0)
      throw ValueError(concat("GraLoRA: gralora_k ", k, " does not divide ", in, " or ", out,
                              " of ", site.path));
    auto a = BasicTensor<T>::zeros({k, in / k, r}), b = BasicTensor<T>::zeros({k, r, out / k});
    auto ga = BasicTensor<T>::zeros({h, in}), gb = BasicTensor<T>::zeros({out, h});
    if (!context.loading) {
      auto& rng = context.generator;
      // Blocks are drawn as [rank, in] and [out, rank] and kept transposed.
      const auto draw = [&rng](BasicTensor<T>& to, Index n, Index rows, Index cols) {
        const auto drawn = detail::kaiming_uniform_tensor<T>(rng, {rows, cols}, cols);
        for (Index i = 0; i < rows; ++i)
          for (Index j = 0; j < cols; ++j) to[(n * cols + j) * rows + i] = drawn(i, j);
      };
      for (Index n = 0; n < k; ++n) {
        draw(a, n, r, in / k);
        if (!config.init_weights) draw(b, n, out / k, r);
      }
      if (h > 0) {  // the layers draw once for themselves first
        detail::kaiming_uniform_tensor<T>(rng, ga.shape(), in);
        detail::kaiming_uniform_tensor<T>(rng, gb.shape(), h);
        ga = detail::kaiming_uniform_tensor<T>(rng, ga.shape(), in);
        if (!config.init_weights) gb = detail::kaiming_uniform_tensor<T>(rng, gb.shape(), h);
      }
    }
    a_ = BasicParameter<T>(a);
    b_ = BasicParameter<T>(b);
    if (h > 0) {
      general_a_ = BasicParameter<T>(ga);
      general_b_ = BasicParameter<T>(gb);
    }
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicGraLoRA(const GraLoRAConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicGraLoRA(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const Index k = config_.blocks, r = config_.rank, rows = x.rows();
    const T s = static_cast<T>(config_.alpha / static_cast<double>(r + config_.hybrid_rank));
    const auto dropped = graft::dropout(x, config_.dropout);
    const auto h = block_matmul(reshape(dropped, {rows, x.cols()}), tape.parameter(a_));
    // Part j of every input block goes to output block j.
    const auto mixed =
        reshape(permute(reshape(h, {rows, k, k, r / k}), {0, 2, 1, 3}), {rows, k * r});
    const auto delta = scale(block_matmul(mixed, tape.parameter(b_)), s);
    const auto y = general_a_
                       ? linear_low_rank(base, x, graft::dropout(x, config_.dropout),
                                         tape.parameter(general_a_), tape.parameter(general_b_), s)
                       : linear(base, x);
    return add(y, reshape(delta, y.shape()));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    const auto put = [&](const char* name, const BasicParameter<T>& p) {
      if (!p) return;
      list.push_back({.name = name, .parameter = p, .index = {}, .file_shape = {}});
    };
    put("gralora_A", a_);
    put("gralora_B", b_);
    put("gralora_A_general.weight", general_a_);
    put("gralora_B_general.weight", general_b_);
    return list;
  }

 private:
  GraLoRAConfig config_;
  BasicParameter<T> a_, b_, general_a_, general_b_;
};

using GraLoRA = BasicGraLoRA<float>;

}  // namespace graft::inline v0_1
