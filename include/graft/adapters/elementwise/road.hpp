#pragma once

#include <string>
#include <vector>

#include "graft/adapters/adapter.hpp"
#include "graft/adapters/method.hpp"
#include "graft/autograd/ops/rotate_pairs.hpp"

namespace graft::inline v0_1 {

/// Configuration of RoAd, fields as PEFT's RoadConfig.
struct RoAdConfig {
  std::string variant = "road_1";  ///< road_1, road_2, road_4: angles per pair of outputs 1, 2 or 4
  Index group_size =
      64;  ///< even, divides out; output p of a group is paired with p + group_size / 2
  bool init_weights = true;  ///< θ = 0, α = 1; false: θ ~ N(0, 0.5), α ~ N(1, 0.5)
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "ROAD";

  template <class Visitor>
  void fields(Visitor& v) {
    v("variant", variant);
    v("group_size", group_size);
    v("init_weights", init_weights);
    v("target_modules", target_modules);
    v("modules_to_save", select.modules_to_save);
  }
  /// @throws ValueError for an unknown variant or a group size that is not even and positive.
  void validate() const {
    if (variant != "road_1" && variant != "road_2" && variant != "road_4")
      throw ValueError(concat("RoAd: variant '", variant, "', expected road_1, road_2 or road_4"));
    if (group_size < 2 || group_size % 2 != 0)
      throw ValueError(concat("RoAd: group_size ", group_size, ", expected even and positive"));
  }
  Index angles_per_pair() const { return variant == "road_1" ? 1 : variant == "road_2" ? 2 : 4; }
};

/// RoAd: in groups of g outputs, z = base(x), with partner(p) = p ± g/2:
///   y_p = c_p z_p − s_p z_{p+g/2},   y_{p+g/2} = c_{p+g/2} z_{p+g/2} + s_{p+g/2} z_p,   c = α cos
///   θ, s = α sin θ.
///
/// road_1: one (θ, α) a pair; road_2: one an output; road_4: 2 g a group, c from the first g and s
/// from the last. Trained: out, 2 out or 4 out. The identity at the start. Acts on the bias too;
/// merges. Source: Liao & Monz 2024 (arXiv:2409.00119), section 3.2. Tensors: road_theta,
/// road_alpha.
template <std::floating_point T>
class BasicRoAd {
 public:
  using Scalar = T;
  using Config = RoAdConfig;

  static MethodInfo info() {
    return {.peft_type = "ROAD",
            .name = "RoAd",
            .family = "elementwise",
            .paper = "arXiv:2409.00119",
            .sites = "linear",
            .parameters = "out; 2 out or 4 out by variant"};
  }

  /// @throws ValueError if the group size does not divide out.
  BasicRoAd(const RoAdConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : kind_(config.angles_per_pair()),
        group_(config.group_size),
        groups_(site.out_features / config.group_size) {
    config.validate();
    if (site.out_features % group_ != 0)
      throw ValueError(concat("RoAd: group_size ", group_, " does not divide the ",
                              site.out_features, " outputs of ", site.path));
    const Index count = site.out_features / 2 * kind_;
    auto theta = BasicTensor<T>::zeros({count});
    auto alpha = BasicTensor<T>::full({count}, T{1});
    if (!config.init_weights && !context.loading) {
      context.generator.normal(theta.data(), count, 0, 0.5);
      context.generator.normal(alpha.data(), count, 1, 0.5);
    }
    theta_ = BasicParameter<T>(std::move(theta));
    alpha_ = BasicParameter<T>(std::move(alpha));
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicRoAd(const RoAdConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicRoAd(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto theta = tape.parameter(theta_), alpha = tape.parameter(alpha_);
    const Index half = group_ / 2, out = group_ * groups_;
    auto c = mul(alpha, cos(theta)), s = mul(alpha, sin(theta));
    if (kind_ == 4) {
      c = slice(reshape(c, {groups_, 2, group_}), 1, 0, 1);
      s = slice(reshape(s, {groups_, 2, group_}), 1, 1, 1);
    }
    // One factor an output, the sines of the first halves negative.
    const Index sets = kind_ == 1 ? 1 : 2;
    c = reshape(c, {groups_, sets, half});
    s = reshape(s, {groups_, sets, half});
    if (kind_ == 1) c = concat_along(1, std::vector<BasicVar<T>>{c, c});
    const auto first = slice(s, 1, 0, 1), second = slice(s, 1, sets - 1, 1);
    s = concat_along(1, std::vector<BasicVar<T>>{scale(first, T{-1}), second});
    return rotate_pairs(linear(base, x), reshape(c, {out}), reshape(s, {out}), group_);
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list;
    list.push_back({.name = "road_theta", .parameter = theta_, .index = {}, .file_shape = {}});
    list.push_back({.name = "road_alpha", .parameter = alpha_, .index = {}, .file_shape = {}});
    return list;
  }

 private:
  Index kind_, group_, groups_;
  BasicParameter<T> theta_;
  BasicParameter<T> alpha_;
};

using RoAd = BasicRoAd<float>;

}  // namespace graft::inline v0_1
