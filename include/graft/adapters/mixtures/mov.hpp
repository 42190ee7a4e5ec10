#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/adapted.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/mixtures/feed_forward.hpp"
#include "graft/adapters/mixtures/router.hpp"
#include "graft/adapters/target_match.hpp"

namespace graft::inline v0_1 {

/// Configuration of MoV.
struct MoVConfig {
  Index num_experts = 10;
  /// Layers whose outputs are scaled; none: keys, values and the inner states of the feed-forward
  /// blocks. The second layer of such a block ("down_proj", "output.dense", or "intermediate", as
  /// files call it) means its input.
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "MOV";

  template <class Visitor>
  void fields(Visitor& v) {
    v("num_experts", num_experts);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for a count below one.
  void validate() const {
    if (num_experts < 1)
      throw ValueError(concat("MoV: num_experts ", num_experts, ", expected at least 1"));
  }
};

/// MoV: z ← z ⊙ (p V), p = softmax(z W_rᵀ + b_r): a tensor is scaled by vectors that a router mixes
/// token by token; the router reads the tensor itself.
///
/// z: [..., m], V: [N, m], ones; W_r: [N, m], N(0, 0.02); b_r: [N], zero; trained: 2 N m + N. Keys
/// and values are scaled head by head, with one router of all heads: V: [H, N, d_h], W_r: [N, d_h];
/// trained: N m + N d_h + N. The identity at the start. Does not merge: the scale depends on the
/// token. Source: Zadouri et al. 2023 (arXiv:2309.05444), section 3. Tensors: mov.weight,
/// mov.router.{weight, bias}.
template <std::floating_point T>
class BasicMoV {
 public:
  using Scalar = T;
  using Config = MoVConfig;
  enum class Side { input, output };  ///< of a layer

  /// For a tensor of `width` features in `heads` heads; 0: no heads. @throws ValueError if these do
  /// not divide it
  BasicMoV(const MoVConfig& config, Index width, Index heads, InitContext<T>& context,
           Side side = Side::output, std::string path = "")
      : experts_(config.num_experts),
        heads_(heads),
        width_(heads > 0 ? width / heads : width),
        side_(side),
        path_(std::move(path)) {
    config.validate();
    if (heads > 0 && width % heads != 0)
      throw ValueError(concat("MoV: ", heads, " heads of ", width, " features"));
    v_ = detail::constant<T>(heads > 0 ? Shape{heads, experts_, width_} : Shape{experts_, width_},
                             1);
    router_ = {experts_, width_, true, 0.02, context};
  }
  /// For the outputs of a layer of one's own, without heads.
  BasicMoV(const MoVConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : BasicMoV(config, site.out_features, 0, context) {}

  /// The scaled tensor; its last axis, or its last two, [heads, width], are scaled.
  BasicVar<T> scaled(const BasicVar<T>& z) const {
    const Index each = width_ * std::max(heads_, Index{1});
    if (z.size() % each != 0 || z.cols() != (z.cols() == each ? each : width_))
      throw ShapeError(concat("MoV: ", z.shape().text(), ", expected ", each, " features"));
    const Index count = z.size() / width_, tokens = z.size() / each;
    const auto states = reshape(z, {count, width_});
    const auto p = router_(states);
    const auto v = z.tape().parameter(v_);
    if (heads_ == 0) return reshape(mul(states, matmul(p, v)), z.shape());
    const auto mixed =
        permute(matmul(permute(reshape(p, {tokens, heads_, experts_}), {1, 0, 2}), v), {1, 0, 2});
    return reshape(mul(states, reshape(mixed, {count, width_})), z.shape());
  }
  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    return side_ == Side::input ? linear(base, scaled(x)) : scaled(linear(base, x));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list = {detail::named("mov.weight", v_)};
    router_.list(list, "mov.router");
    if (path_.empty()) return list;
    for (auto& t : list) {
      t.name = "model." + path_ + "." + t.name;
      t.scope = AdapterTensor<T>::Scope::model;
    }
    return list;
  }
  std::string merge_reason() const {
    return "MoV scales token by token; a weight cannot hold that";
  }

 private:
  Index experts_, heads_, width_;
  Side side_;
  std::string path_;  ///< in files, where it is not that of the site
  BasicParameter<T> v_;
  ExpertRouter<T> router_;
};

template <std::floating_point T>
struct MoVMethod {
  using Scalar = T;
  using Config = MoVConfig;
  static constexpr bool kByRole = true;
  static MethodInfo info() {
    return {.peft_type = "MOV",
            .name = "MoV",
            .family = "mixtures",
            .paper = "arXiv:2309.05444",
            .sites = "linear",
            .parameters = "; keys and values N m + N d_h + N, others 2 N m + N, N = num_experts",
            .mergeable = false,
            .in_peft = false};
  }
  static bool targets(const Config& config, const std::string& path) {
    const auto place = detail::feed_forward_place(path);
    const bool inner = place.role == detail::FeedForwardRole::down;
    const auto& names = config.target_modules;
    if (names.empty()) return inner || per_head(path);
    return matches(names, path) || (inner && !place.inner.empty() && matches(names, place.inner));
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    using Side = typename BasicMoV<T>::Side;
    detail::require_plain("MoV", site);
    const auto place = detail::feed_forward_place(site.path);
    if (place.role == detail::FeedForwardRole::down)
      return linear_part(
          BasicMoV<T>(config, site.in_features, 0, context, Side::input, place.inner));
    const Index width = site.model.head_dim;
    const Index heads = per_head(site.path) && width > 0 ? site.out_features / width : 0;
    return linear_part(BasicMoV<T>(config, site.out_features, heads, context));
  }

 private:
  static bool per_head(const std::string& path) {
    const auto name = last_part(path);
    return name == "key" || name == "value" || name == "k_proj" || name == "v_proj" ||
           name == "k_lin" || name == "v_lin" || name == "k" || name == "v";
  }
};

using MoV = BasicMoV<float>;

}  // namespace graft::inline v0_1
