#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "graft/adapters/method.hpp"

namespace graft::inline v0_1 {

/// Configuration of SSF. Without target modules it follows every linear layer, convolution, norm
/// and embedding but the output layers.
struct SSFConfig {
  TargetModules target_modules = {};
  bool exact_identity = false;  ///< γ = 1, β = 0 at the start
  double init_std = 0.02;       ///< else γ ~ N(1, init_std²), β ~ N(0, init_std²)
  Selection select = {};

  static constexpr const char* kPeftType = "SSF";

  template <class Visitor>
  void fields(Visitor& v) {
    v("target_modules", target_modules);
    v("exact_identity", exact_identity);
    v("init_std", init_std);
    select.fields(v);
  }
  /// @throws ValueError for a negative deviation.
  void validate() const {
    if (!(init_std >= 0)) throw ValueError(concat("SSF: init_std ", init_std));
  }
};

namespace detail {

/// γ and β of one place, and their draws.
template <std::floating_point T>
class ScaleShift {
 public:
  ScaleShift(const SSFConfig& config, Index width, InitContext<T>& context) {
    config.validate();
    auto scale = BasicTensor<T>::full({width}, T{1}), shift = BasicTensor<T>::zeros({width});
    if (!config.exact_identity && !context.loading) {
      context.generator.normal(scale.data(), width, 1, config.init_std);
      context.generator.normal(shift.data(), width, 0, config.init_std);
    }
    scale_ = BasicParameter<T>(std::move(scale));
    shift_ = BasicParameter<T>(std::move(shift));
  }
  BasicVar<T> operator()(const BasicVar<T>& y) const {
    auto& tape = y.tape();
    return add(mul(y, tape.parameter(scale_)), tape.parameter(shift_));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(2);
    list[0].name = "ssf_scale";
    list[0].parameter = scale_;
    list[1].name = "ssf_shift";
    list[1].parameter = shift_;
    return list;
  }
  const BasicTensor<T>& scale() const { return scale_.value(); }
  const BasicTensor<T>& shift() const { return shift_.value(); }

 private:
  BasicParameter<T> scale_, shift_;
};

}  // namespace detail

/// SSF behind a linear layer or a convolution: y = γ ⊙ base(x) + β, bias included.
///
/// γ, β: [out] (channels of a convolution); trained: 2 out. Near the identity at the start, the
/// identity with `exact_identity`. Merges: W' = diag(γ) W, b' = γ ⊙ b + β, a missing b is created.
/// Source: Lian et al. 2022 (arXiv:2210.08823), eq. 3 and 4. Tensors: ssf_scale, ssf_shift.
template <std::floating_point T>
class BasicSSF {
 public:
  using Scalar = T;
  using Config = SSFConfig;

  BasicSSF(const SSFConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : map_(config, site.out_features, context) {}
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicSSF(const SSFConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicSSF(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    return map_(linear(base, x));
  }
  std::vector<AdapterTensor<T>> tensors() const { return map_.tensors(); }

 private:
  detail::ScaleShift<T> map_;
};

/// SSF behind an embedding: y = γ ⊙ E[ids] + β. Merges into the table.
template <std::floating_point T>
class BasicSSFEmbedding {
 public:
  using Scalar = T;

  BasicSSFEmbedding(const SSFConfig& config, const EmbeddingSiteInfo<T>& site,
                    InitContext<T>& context)
      : map_(config, site.dim, context) {}
  BasicVar<T> apply(const BasicEmbeddingView<T>& base, BasicTape<T>& tape,
                    std::span<const std::int32_t> ids) const {
    return map_(base(tape, ids));
  }
  std::vector<AdapterTensor<T>> tensors() const { return map_.tensors(); }

 private:
  detail::ScaleShift<T> map_;
};

/// SSF behind a norm: y = γ ⊙ norm(x) + β. Merges into weight and bias of a LayerNorm; an RMSNorm
/// has no bias, it takes the scale only while β = 0.
template <std::floating_point T>
class BasicSSFNorm {
 public:
  using Scalar = T;

  BasicSSFNorm(const SSFConfig& config, const NormSiteInfo<T>& site, InitContext<T>& context)
      : map_(config, site.width, context) {}
  BasicVar<T> apply(const BasicNorm<T>& norm, const BasicVar<T>& x) const { return map_(norm(x)); }
  std::optional<BasicNorm<T>> merged(const BasicNorm<T>& norm) const {
    const auto& scale = map_.scale();
    const auto& shift = map_.shift();
    const Index n = scale.size();
    if (norm.rms && !norm.bias &&
        std::any_of(shift.begin(), shift.end(), [](T v) { return v != T{0}; }))
      return std::nullopt;
    BasicNorm<T> result = norm;
    result.weight = BasicTensor<T>::empty({n});
    for (Index i = 0; i < n; ++i)
      result.weight[i] = scale[i] * ((norm.weight ? norm.weight[i] : T{1}) + norm.weight_offset) -
                         norm.weight_offset;
    if (norm.rms && !norm.bias) return result;
    result.bias = BasicTensor<T>::empty({n});
    for (Index i = 0; i < n; ++i)
      result.bias[i] = scale[i] * (norm.bias ? norm.bias[i] : T{0}) + shift[i];
    return result;
  }
  std::vector<AdapterTensor<T>> tensors() const { return map_.tensors(); }

 private:
  detail::ScaleShift<T> map_;
};

template <std::floating_point T>
struct SSFMethod {
  using Scalar = T;
  using Config = SSFConfig;
  static MethodInfo info() {
    return {.peft_type = "SSF",
            .name = "SSF",
            .family = "elementwise",
            .paper = "arXiv:2210.08823",
            .sites = "linear, conv, norm, embedding",
            .parameters = "2 out",
            .in_peft = false,
            .identity_at_init = false};
  }
  static constexpr bool kEverySite = true;
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    return linear_part(BasicSSF<T>(config, site, context));
  }
  static std::shared_ptr<EmbeddingPart<T>> embedding(const Config& config,
                                                     const EmbeddingSiteInfo<T>& site,
                                                     InitContext<T>& context) {
    return embedding_part(BasicSSFEmbedding<T>(config, site, context));
  }
  static std::shared_ptr<NormPart<T>> norm(const Config& config, const NormSiteInfo<T>& site,
                                           InitContext<T>& context) {
    if (site.width == 0) return nullptr;
    return norm_part(BasicSSFNorm<T>(config, site, context));
  }
};

using SSF = BasicSSF<float>;

}  // namespace graft::inline v0_1
