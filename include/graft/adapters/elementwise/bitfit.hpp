#pragma once

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "graft/adapters/method.hpp"

namespace graft::inline v0_1 {

/// Configuration of BitFit. Output layers take part only if `target_modules` name them.
struct BitFitConfig {
  /// all: every linear layer and LayerNorm, or those that `target_modules` mean; query_mlp: query
  /// projections and the up-projections of feed-forward blocks; targets: `target_modules`.
  std::string subset = "all";
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "BITFIT";

  template <class Visitor>
  void fields(Visitor& v) {
    v("subset", subset);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for an unknown subset, or `targets` without target modules.
  void validate() const {
    if (subset != "all" && subset != "query_mlp" && subset != "targets")
      throw ValueError(concat("BitFit: subset '", subset, "', expected all, query_mlp or targets"));
    if (subset == "targets" && target_modules.empty())
      throw ValueError("BitFit: subset targets needs target_modules");
  }
};

/// BitFit: y = base(x) + Δb.
///
/// Δb: [out], zero; trained: out. The identity at the start. Merges into the bias; a missing one is
/// created. Source: Ben Zaken et al. 2022 (arXiv:2106.10199), section 3. Tensor: bitfit_bias.
template <std::floating_point T>
class BasicBitFit {
 public:
  using Scalar = T;
  using Config = BitFitConfig;

  explicit BasicBitFit(Index out) : bias_(BasicTensor<T>::zeros({out})) {}
  BasicBitFit(const BitFitConfig& config, const LinearSiteInfo<T>& site, InitContext<T>&)
      : BasicBitFit(site.out_features) {
    config.validate();
  }
  /// For a layer of one's own.
  template <Linear L>
  BasicBitFit(const BitFitConfig&, const L& base) : BasicBitFit(base.out_features()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    return add(linear(base, x), x.tape().parameter(bias_));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(1);
    list[0].name = "bitfit_bias";
    list[0].parameter = bias_;
    return list;
  }

 private:
  BasicParameter<T> bias_;
};

/// BitFit on a LayerNorm: y = norm(x) + Δb. Merges into its bias.
template <std::floating_point T>
class BasicBitFitNorm {
 public:
  using Scalar = T;

  explicit BasicBitFitNorm(Index width) : bias_(BasicTensor<T>::zeros({width})) {}
  BasicVar<T> apply(const BasicNorm<T>& norm, const BasicVar<T>& x) const {
    return add(norm(x), x.tape().parameter(bias_));
  }
  std::optional<BasicNorm<T>> merged(const BasicNorm<T>& norm) const {
    BasicNorm<T> result = norm;
    result.bias = bias_.value().clone();
    if (norm.bias)
      kernels::add(result.bias.data(), norm.bias.data(), result.bias.data(), result.bias.size());
    return result;
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(1);
    list[0].name = "bitfit_bias";
    list[0].parameter = bias_;
    return list;
  }

 private:
  BasicParameter<T> bias_;
};

template <std::floating_point T>
struct BitFitMethod {
  using Scalar = T;
  using Config = BitFitConfig;
  static MethodInfo info() {
    return {.peft_type = "BITFIT",
            .name = "BitFit",
            .family = "elementwise",
            .paper = "arXiv:2106.10199",
            .sites = "linear, conv, LayerNorm",
            .parameters = "out",
            .in_peft = false};
  }
  /// Of query_mlp: a joint projection of query, key and value has no query of its own and
  /// is left out.
  static constexpr bool kEverySite = true;
  static TargetModules target_modules(const Config& config) {
    if (config.subset != "query_mlp") return config.target_modules;
    return {"query", "q_proj", "q_lin", "q",    "up_proj",           "fc1",
            "lin1",  "c_fc",   "wi",    "wi_1", "intermediate.dense"};
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    return linear_part(BasicBitFit<T>(config, site, context));
  }
  static std::shared_ptr<NormPart<T>> norm(const Config&, const NormSiteInfo<T>& site,
                                           InitContext<T>&) {
    if (site.norm.rms || site.width == 0) return nullptr;
    return norm_part(BasicBitFitNorm<T>(site.width));
  }
};

using BitFit = BasicBitFit<float>;

}  // namespace graft::inline v0_1
