#pragma once

#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"

namespace graft::inline v0_1 {

/// Configuration of Lily, fields as PEFT's LilyConfig.
struct LilyConfig {
  Index rank = 32;
  Index stride_a = 1;  ///< stride_A: neighbouring layers that share one A
  Index num_b = 2;     ///< num_B: experts, shared by all layers of one kind
  double scaling = 1;
  bool init_weights = true;  ///< B = 0; false: B random too
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "LILY";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("stride_A", stride_a);
    v("num_B", num_b);
    v("scaling", scaling);
    v("init_weights", init_weights);
    v("target_modules", target_modules);
    select.fields(v, {.rank_pattern = false, .alpha_pattern = false});
  }
  /// @throws ValueError for sizes below one.
  void validate() const {
    if (rank < 1 || stride_a < 1 || num_b < 1)
      throw ValueError(concat("Lily: r ", rank, ", stride_A ", stride_a, " and num_B ", num_b,
                              ", expected at least 1 each"));
  }
};

/// Lily: y = base(x) + s h Σ_e p_e B_e, h = x Aᵀ, p the mean over all tokens of the batch of
/// softmax(h Rᵀ).
///
/// A: [r, in], shared by `stride_A` neighbouring layers; B: [num_B · r, out], num_B experts shared
/// by all layers with the same name and shape; R: [num_B, r], of each layer; trained a kind of
/// layers: ⌈layers / stride_A⌉ r in + num_B r out, and num_B r a layer. The identity at the start
/// (B = 0). Does not merge: p depends on the input, and a row's output on the other rows. Source:
/// Zhong et al. 2025 (arXiv:2407.09946), in the form of PEFT. Tensors: lily_A.weight,
/// lily_B.weight, lily_router.weight; files repeat shared ones in every layer.
template <std::floating_point T>
class BasicLily {
 public:
  using Scalar = T;
  using Config = LilyConfig;

  static MethodInfo info() {
    return {.peft_type = "LILY",
            .name = "Lily",
            .family = "low_rank",
            .paper = "arXiv:2407.09946",
            .sites = "linear",
            .parameters = "; r in / stride_A + num_B r, and num_B r out a kind of layers",
            .mergeable = false,
            .rows_apart = false};
  }

  BasicLily(const LilyConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : config_((config.validate(), config)) {
    const Index r = config.rank, in = site.in_features, out = site.out_features, n = config.num_b;
    const std::string kind = kind_of(config, site.path);
    Index place = 0;  // among the layers of the same kind
    for (const auto& [path, shape] : site.all_sites) {
      if (path == site.path) break;
      place += shape == Shape{out, in} && kind_of(config, path) == kind ? 1 : 0;
    }
    auto a = BasicTensor<T>::zeros({r, in}), b = BasicTensor<T>::zeros({n * r, out}),
         router = BasicTensor<T>::zeros({n, r});
    if (!context.loading) {
      auto& rng = context.generator;
      const auto draw = [&rng](const BasicTensor<T>& like) {
        return detail::kaiming_uniform_tensor<T>(rng, like.shape(), like.cols());
      };
      for (const auto* t : {&a, &b, &router}) draw(*t);  // the layers draw for themselves first
      a = draw(a);
      router = draw(router);
      if (!config.init_weights) b = draw(b);
    }
    const std::string key = concat("lily ", kind, " ", out, "x", in, " ");
    a_ = context.shared.get(concat(key, "A ", place / config.stride_a), [&] { return a; });
    b_ = context.shared.get(key + "B", [&] { return b; });
    router_ = BasicParameter<T>(router);
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicLily(const LilyConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicLily(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const Index r = config_.rank, n = config_.num_b, out = b_.shape()[1];
    const auto h = matmul(x, tape.parameter(a_), Transpose::no, Transpose::yes);
    const auto p = softmax(
        reshape(matmul(h, tape.parameter(router_), Transpose::no, Transpose::yes), {h.rows(), n}));
    const auto experts = reshape(tape.parameter(b_), {n, r * out});
    const auto mixed = reshape(matmul(mean_axis(p, 0, true), experts), {r, out});
    return add(linear(base, x), scale(matmul(h, mixed), static_cast<T>(config_.scaling)));
  }
  std::string merge_reason() const { return "Lily routes by the tokens of the batch"; }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(3);
    list[0].name = "lily_A.weight";
    list[0].parameter = a_;
    list[1].name = "lily_B.weight";
    list[1].parameter = b_;
    list[2].name = "lily_router.weight";
    list[2].parameter = router_;
    return list;
  }

 private:
  /// What the configuration calls the layer: the last of its names that ends the path.
  static std::string kind_of(const LilyConfig& config, const std::string& path) {
    if (config.target_modules.all_linear() || config.target_modules.empty())
      return path.substr(path.rfind('.') + 1);
    if (!config.target_modules.pattern.empty()) return config.target_modules.pattern;
    std::string kind;
    for (const auto& name : config.target_modules.names)
      if (path.ends_with(name)) kind = name;
    return kind;
  }

  LilyConfig config_;
  BasicParameter<T> a_, b_, router_;
};

using Lily = BasicLily<float>;

}  // namespace graft::inline v0_1
