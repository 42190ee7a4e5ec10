#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/bottleneck/bottleneck.hpp"
#include "graft/adapters/bottleneck/token_rows.hpp"

namespace graft::inline v0_1 {

/// Configuration of Pfeiffer adapters.
struct PfeifferConfig {
  Index adapter_dim = 64;
  std::string non_linearity = "relu";
  ConfigValue scaling = 1.0;  ///< a factor, or "learned": trained, begins at 1
  bool ln_before = false;     ///< a norm of its own on the bottleneck's input
  bool ln_after = false;      ///< … and on the sum of its output and the sublayer's
  bool use_gating = false;    ///< a gate a row of the batch
  Selection select = {};

  static constexpr const char* kPeftType = "PFEIFFER";

  template <class Visitor>
  void fields(Visitor& v) {
    v("adapter_dim", adapter_dim);
    v("non_linearity", non_linearity);
    v("scaling", scaling);
    v("ln_before", ln_before);
    v("ln_after", ln_after);
    v("use_gating", use_gating);
    select.fields(v);
  }
  /// @throws ValueError for a width below one, an unknown activation or scaling.
  void validate() const {
    if (adapter_dim < 1)
      throw ValueError(concat("Pfeiffer: adapter_dim ", adapter_dim, ", expected at least 1"));
    detail::require_activation("Pfeiffer", non_linearity);
    if (!scaling.is_number() && scaling != ConfigValue("learned"))
      throw ValueError("Pfeiffer: scaling expected a number or \"learned\"");
  }
};

namespace detail {

/// A trained LayerNorm that an adapter adds, eps 1e-5 unless said otherwise.
template <std::floating_point T>
class AddedNorm {
 public:
  AddedNorm() = default;
  AddedNorm(std::string name, Index width, double eps = 1e-5)
      : name_(std::move(name)),
        eps_(static_cast<T>(eps)),
        weight_(constant<T>({width}, 1)),
        bias_(constant<T>({width}, 0)) {}
  explicit operator bool() const { return static_cast<bool>(weight_); }
  BasicVar<T> operator()(const BasicVar<T>& x) const {
    if (!weight_) return x;
    return layer_norm(x, x.tape().parameter(weight_), x.tape().parameter(bias_), eps_);
  }
  void list(std::vector<AdapterTensor<T>>& tensors) const {
    if (!weight_) return;
    tensors.push_back(named(name_ + ".weight", weight_));
    tensors.push_back(named(name_ + ".bias", bias_));
  }

 private:
  std::string name_;
  T eps_ = 0;
  BasicParameter<T> weight_, bias_;
};

}  // namespace detail

/// Pfeiffer adapters: m' = m + g ⊙ s A(u), m the output of the feed-forward sublayer, u the sum of
/// m and the residual, normalised by the block's own norm if it normalises after the sum.
///
/// A(u) = φ(u Dᵀ + b_D) Uᵀ + b_U; gate g = mean over the tokens of σ(u w_gᵀ + b_g), one number a
/// row of the batch. D: [r, d], U: [d, r]; trained a block: 2 d r + r + d, and 2 d a norm, d + 1
/// for the gate, 1 for the scale. Near the identity at the start (N(0, 0.02)), exact where U = 0
/// and there is no ln_after. Not mergeable. Source: Pfeiffer et al. 2021 (arXiv:2005.00247),
/// section 3.1, and the adapters library for the options. Tensors: adapter_down.{weight, bias},
/// adapter_up.{weight, bias}, adapter_ln_before, adapter_ln_after, adapter_scale, adapter_gate.
template <std::floating_point T>
class BasicPfeiffer {
 public:
  using Scalar = T;
  using Module = BasicBottleneck<T>;

  BasicPfeiffer(const PfeifferConfig& config, const HiddenSiteInfo<T>& site,
                InitContext<T>& context)
      : module_(site.width, site.width, config.adapter_dim, config.non_linearity,
                Module::Start::normal, context),
        norm_(site.norm) {
    if (config.scaling.is_number())
      scaling_ = static_cast<T>(config.scaling.number());
    else
      scale_ = detail::constant<T>({1}, 1);
    if (config.ln_before) before_ = {"adapter_ln_before", site.width};
    if (config.ln_after) after_ = {"adapter_ln_after", site.width};
    if (config.use_gating) {
      gate_ = detail::fresh<T>(context, {1, site.width}, [](TorchGenerator& g, BasicTensor<T>& t) {
        g.normal(t.data(), t.size(), 0, 0.02);
      });
      gate_bias_ = detail::constant<T>({1}, 0);
    }
  }
  BasicVar<T> apply(const BasicVar<T>&, const BasicVar<T>& output,
                    const BasicVar<T>& residual) const {
    auto& tape = output.tape();
    auto u = residual ? add(residual, output) : output;
    if (norm_ != nullptr) u = (*norm_)(u);
    auto y = module_(before_(u));
    y = scale_ ? mul(y, tape.parameter(scale_)) : scale(y, scaling_);
    if (gate_) y = gated_rows(u, y);
    auto sum = add(output, y);
    if (!after_) return sum;
    if (!residual) return after_(sum);
    return sub(after_(add(residual, sum)), residual);
  }
  std::vector<AdapterTensor<T>> tensors() const {
    auto list = module_.tensors();
    before_.list(list);
    after_.list(list);
    if (scale_) list.push_back(detail::named("adapter_scale", scale_));
    if (gate_) {
      list.push_back(detail::named("adapter_gate.weight", gate_));
      list.push_back(detail::named("adapter_gate.bias", gate_bias_));
    }
    return list;
  }
  std::string merge_reason() const { return "a bottleneck adapter is not linear"; }

 private:
  BasicVar<T> gated_rows(const BasicVar<T>& u, const BasicVar<T>& y) const {
    auto& tape = u.tape();
    const Index batch = detail::batch_rows(u), tokens = u.rows() / batch;
    const auto open = sigmoid(add(matmul(u, tape.parameter(gate_), Transpose::no, Transpose::yes),
                                  tape.parameter(gate_bias_)));
    const auto g = mean_axis(reshape(open, {batch, tokens, 1}), 1, true);
    return reshape(mul(reshape(y, {batch, tokens, y.cols()}), g), y.shape());
  }

  Module module_;
  const BasicNormSite<T>* norm_;
  T scaling_ = 1;
  BasicParameter<T> scale_, gate_, gate_bias_;
  detail::AddedNorm<T> before_, after_;
};

template <std::floating_point T>
struct PfeifferMethod {
  using Scalar = T;
  using Config = PfeifferConfig;
  static constexpr bool kByRole = true;
  static MethodInfo info() {
    return {.peft_type = "PFEIFFER",
            .name = "Pfeiffer adapter",
            .family = "bottleneck",
            .paper = "arXiv:2005.00247",
            .sites = "hidden",
            .parameters = "2 d r + r + d, r = adapter_dim",
            .mergeable = false,
            .in_peft = false,
            .identity_at_init = false};
  }
  static std::shared_ptr<HiddenPart<T>> hidden(const Config& config, const HiddenSiteInfo<T>& site,
                                               InitContext<T>& context) {
    if (site.role != HiddenRole::feed_forward) return nullptr;
    return hidden_part(BasicPfeiffer<T>(config, site, context));
  }
};

}  // namespace graft::inline v0_1
