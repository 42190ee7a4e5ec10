#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"

namespace graft::inline v0_1 {

/// Configuration of FLoRA (Tucker form).
struct FLoRAConfig {
  std::vector<Index> rank = {8};  ///< in, out, kernel sizes …; a single one for all
  double scale = 4;
  double dropout = 0;  ///< on the input of the branch, while training; the original: 0.01
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "FLORA";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("scale", scale);
    v("dropout", dropout);
    v("target_modules", target_modules);
    v("exclude_modules", select.exclude_modules);
    nullable_field(v, "layers_to_transform", select.layers_to_transform);
    nullable_field(v, "layers_pattern", select.layers_pattern);
    nullable_field(v, "modules_to_save", select.modules_to_save);
  }
};

/// FLoRA: a Tucker decomposition of the update with a core of the order of the weight,
///   ΔW[o, c, u, …] = s Σ G[p, q, a, …] U_in[c, p] U_out[o, q] U_k[u, a] ….
///
/// G: [r_in, r_out, r_k …], zero; U_m: [size, r_m] ~ N(0, 1/(2 r_m)), one for inputs (channels),
/// outputs and each axis of a kernel; trained: Π r_m + Σ size_m r_m. The identity at the start;
/// merges. G is multiplied into the input side, the outputs enter as a low-rank factor. Source: Si
/// et al. 2024 (arXiv:2405.14739), eq. 4. Tensors: flora_G, flora_U.m.
template <std::floating_point T>
class BasicFLoRA {
 public:
  using Scalar = T;
  using Config = FLoRAConfig;

  static MethodInfo info() {
    return {.peft_type = "FLORA",
            .name = "FLoRA",
            .family = "low_rank",
            .paper = "arXiv:2405.14739",
            .sites = "linear, conv",
            .parameters = "; Π r + Σ size r",
            .in_peft = false};
  }

  /// @throws ValueError if the number of ranks is not that of the axes, for groups and 3-d kernels.
  BasicFLoRA(const FLoRAConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : scaling_(static_cast<T>(config.scale)), dropout_(config.dropout) {
    std::vector<Index> sizes{site.conv.kernel.empty() ? site.in_features : site.conv.in_channels,
                             site.out_features};
    sizes.insert(sizes.end(), site.conv.kernel.begin(), site.conv.kernel.end());
    if (site.conv.groups > 1 || sizes.size() > 4)
      throw ValueError(concat("FLoRA: ", site.path,
                              ", a grouped convolution or one over three axes, is not supported"));
    auto ranks = config.rank;
    if (ranks.size() == 1) ranks.assign(sizes.size(), ranks[0]);
    Shape core;
    for (std::size_t m = 0; m < sizes.size(); ++m) {
      if (ranks.size() != sizes.size() || ranks[m] < 1)
        throw ValueError(concat("FLoRA: ", ranks.size(), " ranks for the ", sizes.size(),
                                " axes of ", site.path, ", expected one each, at least 1"));
      core.append(ranks[m]);
      const Shape shape{sizes[m], ranks[m]};
      factors_.emplace_back(
          context.loading
              ? BasicTensor<T>::zeros(shape)
              : detail::normal_tensor<T>(context.generator, shape,
                                         1 / std::sqrt(2 * static_cast<double>(ranks[m]))));
    }
    core_ = BasicParameter<T>(BasicTensor<T>::zeros(core));
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicFLoRA(const FLoRAConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicFLoRA(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    return linear_low_rank(base, x, graft::dropout(x, dropout_), input_factor(tape),
                           tape.parameter(factors_[1]), scaling_);
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(factors_.size() + 1);
    list[0].name = "flora_G";
    list[0].parameter = core_;
    for (std::size_t m = 0; m < factors_.size(); ++m) {
      list[m + 1].name = concat("flora_U.", m);
      list[m + 1].parameter = factors_[m];
    }
    return list;
  }

 private:
  /// [r_out, in], in = channels · kernel: the core times all factors but that of the outputs.
  BasicVar<T> input_factor(BasicTape<T>& tape) const {
    const auto g = tape.parameter(core_);
    const auto u_in = tape.parameter(factors_[0]);
    const Index p = g.shape()[0], q = g.shape()[1], in = u_in.shape()[0];
    if (factors_.size() == 2) return matmul(g, u_in, Transpose::yes, Transpose::yes);
    const Index rest = g.size() / p;
    auto t = matmul(u_in, reshape(g, {p, rest}));  // [in, q · kernel ranks]
    const Index a = g.shape()[2];
    const auto u_first = tape.parameter(factors_[2]);
    if (factors_.size() == 3) {
      t = matmul(reshape(t, {in * q, a}), u_first, Transpose::no, Transpose::yes);
      const Index width = u_first.shape()[0];
      return reshape(permute(reshape(t, {in, q, width}), {1, 0, 2}), {q, in * width});
    }
    const auto u_last = tape.parameter(factors_[3]);
    const Index e = g.shape()[3], height = u_first.shape()[0], width = u_last.shape()[0];
    t = matmul(reshape(t, {in * q * a, e}), u_last, Transpose::no, Transpose::yes);
    t = permute(reshape(t, {in, q, a, width}), {1, 0, 3, 2});
    t = matmul(reshape(t, {q * in * width, a}), u_first, Transpose::no, Transpose::yes);
    return reshape(permute(reshape(t, {q, in, width, height}), {0, 1, 3, 2}),
                   {q, in * height * width});
  }

  T scaling_;
  double dropout_;
  BasicParameter<T> core_;
  std::vector<BasicParameter<T>> factors_;
};

using FLoRA = BasicFLoRA<float>;

}  // namespace graft::inline v0_1
