#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/bottleneck/bottleneck.hpp"

namespace graft::inline v0_1 {

/// Configuration of parallel adapters.
struct ParallelAdapterConfig {
  Index adapter_dim = 512;
  double scaling = 4;
  std::string non_linearity = "relu";
  bool learn_scale = false;      ///< a trained factor, which begins at 1, in place of `scaling`
  std::string position = "ffn";  ///< "ffn", "attention" or "both"
  TargetModules target_modules = {};  ///< linear layers instead, each with an adapter beside it
  Selection select = {};

  static constexpr const char* kPeftType = "PARALLEL_ADAPTER";

  template <class Visitor>
  void fields(Visitor& v) {
    v("adapter_dim", adapter_dim);
    v("scaling", scaling);
    v("non_linearity", non_linearity);
    v("learn_scale", learn_scale);
    v("position", position);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for a width below one, an unknown activation or position.
  void validate() const {
    if (adapter_dim < 1)
      throw ValueError(
          concat("parallel adapter: adapter_dim ", adapter_dim, ", expected at least 1"));
    detail::require_activation("parallel adapter", non_linearity);
    if (position != "ffn" && position != "attention" && position != "both")
      throw ValueError(concat("parallel adapter: position '", position,
                              "', expected \"ffn\", \"attention\" or \"both\""));
  }
};

/// h ← h + s A(u): a bottleneck beside a linear layer or a sublayer, u is what that reads.
template <std::floating_point T>
class BasicParallelAdapter {
 public:
  using Scalar = T;
  using Module = BasicBottleneck<T>;

  BasicParallelAdapter(Module module, double scaling, bool learn_scale)
      : module_(std::move(module)), scaling_(static_cast<T>(scaling)) {
    if (learn_scale) scale_ = detail::constant<T>({1}, 1);
  }
  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    return add(linear(base, x), branch(x));
  }
  BasicVar<T> apply(const BasicVar<T>& input, const BasicVar<T>& output, const BasicVar<T>&) const {
    return add(output, branch(input));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    auto list = module_.tensors();
    if (scale_) list.push_back(detail::named("adapter_scale", scale_));
    return list;
  }
  std::string merge_reason() const { return module_.merge_reason(); }

 private:
  BasicVar<T> branch(const BasicVar<T>& u) const {
    const auto y = module_(u);
    return scale_ ? mul(y, u.tape().parameter(scale_)) : scale(y, scaling_);
  }
  Module module_;
  T scaling_;
  BasicParameter<T> scale_;
};

/// Parallel and scaled parallel adapters: h ← F(u) + s (φ(u Dᵀ + b_D) Uᵀ + b_U) for a sublayer F,
/// u its own input (after the norm of a block that normalises first); or F a linear layer that
/// `target_modules` names.
///
/// D: [r, in], U: [out, r]; trained a site: r (in + out) + r + out, and s if it is learned. The
/// identity at the start (U = 0). Merges only beside a linear layer with the identity as φ: W ← W +
/// s U D. Source: He et al. 2022 (arXiv:2110.04366), table 1 and section 4. Tensors:
/// adapter_down.{weight, bias}, adapter_up.{weight, bias}, adapter_scale.
template <std::floating_point T>
struct ParallelAdapterMethod {
  using Scalar = T;
  using Config = ParallelAdapterConfig;
  static constexpr bool kByRole = true;
  static MethodInfo info() {
    return {.peft_type = "PARALLEL_ADAPTER",
            .name = "Parallel adapter",
            .family = "bottleneck",
            .paper = "arXiv:2110.04366",
            .sites = "hidden, linear",
            .parameters = "2 d r + r + d, r = adapter_dim",
            .mergeable = false,
            .in_peft = false};
  }
  static BasicParallelAdapter<T> make(const Config& config, Index in, Index out,
                                      InitContext<T>& context) {
    using Module = BasicBottleneck<T>;
    return {
        Module(in, out, config.adapter_dim, config.non_linearity, Module::Start::zero_up, context),
        config.scaling, config.learn_scale};
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    if (config.target_modules.empty()) return nullptr;
    return linear_part(make(config, site.in_features, site.out_features, context));
  }
  static std::shared_ptr<HiddenPart<T>> hidden(const Config& config, const HiddenSiteInfo<T>& site,
                                               InitContext<T>& context) {
    const std::vector<std::string> placement = config.position == "both"
                                                   ? std::vector<std::string>{"attention", "ffn"}
                                                   : std::vector<std::string>{config.position};
    if (!config.target_modules.empty() || !detail::placed_at(placement, site.role)) return nullptr;
    return hidden_part(make(config, site.width, site.width, context));
  }
};

}  // namespace graft::inline v0_1
