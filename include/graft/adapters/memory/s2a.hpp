#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/memory/derivative_codes.hpp"
#include "graft/adapters/memory/side_tuning.hpp"
#include "graft/autograd/ops/windows.hpp"

namespace graft::inline v0_1 {

/// Configuration of S2A's side module, and of the codes that functions keep (`coded_activation` and
/// the others).
struct S2AConfig {
  std::string part = "side_module";
  Index adapter_dim = 8;
  Index window = 2;
  std::string non_linearity = "gelu";
  std::string function = "gelu";  ///< that `bits` to `range_dtype` are for
  Index bits = 4;
  Index group_size = 256;
  std::string range_dtype = "f16";
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "S2A";

  template <class Visitor>
  void fields(Visitor& v) {
    v("part", part);
    v("adapter_dim", adapter_dim);
    v("window", window);
    v("non_linearity", non_linearity);
    v("function", function);
    v("bits", bits);
    v("group_size", group_size);
    v("range_dtype", range_dtype);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for sizes below one, an unknown activation or part.
  void validate() const {
    if (part != "side_module")
      throw ValueError(concat("S2A: part '", part, "', expected side_module"));
    if (adapter_dim < 1 || window < 1)
      throw ValueError(concat("S2A: adapter_dim ", adapter_dim, " and window ", window));
    detail::require_activation("S2A", non_linearity);
    codes();
  }
  /// @throws ValueError for an unknown range_dtype.
  DerivativeCodeOptions codes() const {
    if (range_dtype != "f16" && range_dtype != "f32")
      throw ValueError(concat("S2A: range_dtype '", range_dtype, "', expected f16 or f32"));
    return {.bits = bits, .group_size = group_size, .half_ranges = range_dtype == "f16"};
  }
};

/// The side module of S2A: y = h + up(U φ(D m + b_D) + b_U), m the means over windows of w
/// neighbouring tokens of the block's input x, up the repetition over the window's tokens; h the
/// block's output.
///
/// D: [r, d], drawn as a fresh Linear, U: [d, r] and b_U, zero; trained: 2 d r + r + d. What it
/// keeps for the backward pass is 1/w of a bottleneck adapter's. The identity at the start, cannot
/// be merged. Together with biases (BitFit) and prompts, whose gradients need no inputs of layers,
/// and with functions that keep codes of their derivatives (`coded_activation`, `coded_softmax`,
/// `coded_layer_norm`: for one's own blocks), it is S2A. Source: Jin et al. 2025
/// (arXiv:2503.08154). Deviation: windows go along the sequence, in images too; the paper has
/// squares of 2 x 2 there. Tensors: side_down.{weight, bias}, side_up.{weight, bias}.
template <std::floating_point T>
class BasicS2ASide {
 public:
  using Scalar = T;

  BasicS2ASide(const S2AConfig& config, Index width, InitContext<T>& context)
      : config_((config.validate(), config)) {
    const Index r = config.adapter_dim;
    down_ = detail::linear_default(context, {r, width}, width);
    down_bias_ = detail::linear_default(context, {r}, width);
    up_ = detail::constant<T>({width, r}, 0);
    up_bias_ = detail::constant<T>({width}, 0);
  }
  /// x, h: [batch, tokens, width], or rows of the batch that the tape's context tells.
  /// @throws ShapeError if the rows are not those of the batch
  BasicVar<T> apply(const BasicVar<T>& x, const BasicVar<T>& h, const BasicVar<T>& = {}) const {
    const auto* context = x.tape().template context<ForwardContext>();
    const Index rows = x.rows();
    Index batch = x.shape().rank() == 3 ? x.dim(0) : context != nullptr ? context->batch : 1;
    if (batch < 1 || rows % batch != 0)
      throw ShapeError(concat("S2A: ", rows, " tokens in a batch of ", batch));
    const Index tokens = rows / batch;
    const auto means = window_means(reshape(x, {batch, tokens, x.cols()}), config_.window);
    const auto inner =
        detail::apply_activation(config_.non_linearity, affine(means, down_, down_bias_));
    const auto side = affine(inner, up_, up_bias_);
    return add(h, reshape(repeat_windows(side, config_.window, tokens), h.shape()));
  }
  std::string merge_reason() const {
    return "S2A's side module looks at windows of tokens; that is no change of a weight";
  }
  std::vector<AdapterTensor<T>> tensors() const {
    return {detail::named("side_down.weight", down_), detail::named("side_down.bias", down_bias_),
            detail::named("side_up.weight", up_), detail::named("side_up.bias", up_bias_)};
  }

 private:
  S2AConfig config_;
  BasicParameter<T> down_, down_bias_, up_, up_bias_;
};

/// S2A's side module at every block.
template <std::floating_point T>
struct S2AMethod {
  using Scalar = T;
  using Config = S2AConfig;
  static constexpr bool kByRole = true;
  static MethodInfo info() {
    return {.peft_type = "S2A",
            .name = "S2A",
            .family = "memory",
            .paper = "arXiv:2503.08154",
            .sites = "hidden",
            .parameters = "2 d r + r + d, r = adapter_dim",
            .mergeable = false,
            .in_peft = false};
  }
  static std::shared_ptr<HiddenPart<T>> hidden(const Config& config, const HiddenSiteInfo<T>& site,
                                               InitContext<T>& context) {
    if (site.role != HiddenRole::block) return nullptr;
    return hidden_part(BasicS2ASide<T>(config, site.width, context));
  }
};

}  // namespace graft::inline v0_1
