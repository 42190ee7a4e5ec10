#pragma once

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/adapter.hpp"
#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"
#include "graft/adapters/root.hpp"
#include "graft/autograd/ops/orthonormal.hpp"

namespace graft::inline v0_1 {

/// Configuration of DEFT, fields as PEFT's DeftConfig.
struct DEFTConfig {
  Index rank = 8;                             ///< at most out: a larger one is lowered to it
  std::string decomposition_method = "relu";  ///< or "qr"
  std::optional<double> alpha = {};           ///< scaling = alpha / rank; null or zero: 1
  bool para = false;                          ///< PaRa: only takes the subspace away, without R
  double dropout = 0;                         ///< on the input of R, while training
  double init_scale = 1;                      ///< of R with init_weights false
  bool init_weights = true;                   ///< R so that nothing changes; false: N(0, 0.02)
  bool fan_in_fan_out = false;
  std::string bias = "none";
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "DEFT";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("decomposition_method", decomposition_method);
    v("alpha", alpha);
    v("para", para);
    v("deft_dropout", dropout);
    v("init_scale", init_scale);
    v("init_weights", init_weights);
    v("fan_in_fan_out", fan_in_fan_out);
    v("bias", bias);
    v("target_modules", target_modules);
    select.fields(v, {.rank_pattern = false, .alpha_pattern = false});
  }
  /// @throws ValueError for a rank below one or an unknown decomposition.
  void validate() const {
    if (rank < 1) throw ValueError(concat("DEFT: r ", rank, ", expected at least 1"));
    if (decomposition_method != "relu" && decomposition_method != "qr")
      throw ValueError(
          concat("DEFT: decomposition_method '", decomposition_method, "', expected relu or qr"));
  }
};

/// DEFT: W' = W − Q Gᵀ W + s Q R: a subspace of the outputs is taken away and written anew.
///
/// P: [out, r], R: [r, in]; "relu": Q = P, G = max(P, 0); "qr": Q = G = the Q factor of P. On
/// activations: y = base(x) + (s drop(x) Rᵀ − (x Wᵀ) G) Qᵀ, where x Wᵀ is the output of the frozen
/// layer without bias. Trained: r (in + out), with para r out. P ~ N(0, 0.02), R = Gᵀ W / s, the
/// identity at the start except for init_weights false and for para; merges. Source: DEFT, NeurIPS
/// 2025, in the form of PEFT (para: the PaRa method). Tensors: deft_P, deft_R.
template <std::floating_point T>
class BasicDEFT {
 public:
  using Scalar = T;
  using Config = DEFTConfig;

  static MethodInfo info() {
    return {.peft_type = "DEFT",
            .name = "DEFT",
            .family = "low_rank",
            .paper = "NeurIPS 2025, DEFT",
            .sites = "linear",
            .parameters = "r (in + out)"};
  }

  BasicDEFT(const DEFTConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : qr_(config.decomposition_method == "qr"), dropout_(config.dropout) {
    config.validate();
    const Index in = site.in_features, out = site.out_features, r = std::min(config.rank, out);
    if (config.alpha && *config.alpha != 0)
      scaling_ = static_cast<T>(*config.alpha / static_cast<double>(r));
    const bool draw = !context.loading;
    auto p = draw ? detail::normal_tensor<T>(context.generator, {out, r}, 0.02)
                  : BasicTensor<T>::zeros({out, r});
    if (!config.para) {
      auto injected = BasicTensor<T>::zeros({r, in});
      if (draw && !config.init_weights) {
        context.generator.normal(injected.data(), injected.size(), 0, 0.02 * config.init_scale);
      } else if (draw) {
        auto g = qr_ ? qr(p).q : p.clone();
        if (!qr_)
          for (T& v : g) v = std::max(v, T{0});
        injected = detail::product(g, site.weight(), T{1} / scaling_, true, false);
      }
      r_ = BasicParameter<T>(std::move(injected));
    }
    p_ = BasicParameter<T>(std::move(p));
  }
  /// For a layer of one's own; values are drawn from `seed`.
  template <Linear L>
  BasicDEFT(const DEFTConfig& config, const L& base, std::uint64_t seed = 0)
      : BasicDEFT(config, site_info(base), StandaloneInit<T>(seed).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto& root = detail::root_of(base);
    const auto frozen = linear(root, x);
    const auto y = detail::has_adapters_below(base) ? linear(base, x) : frozen;
    const auto bias = bias_of(root);
    const auto product = bias ? sub(frozen, tape.constant(bias)) : frozen;
    const auto p = tape.parameter(p_);
    const auto q = qr_ ? orthonormal(p) : p, g = qr_ ? q : relu(p);
    auto h = scale(matmul(product, g), T{-1});
    if (r_)
      h = add(h, scale(matmul(graft::dropout(x, dropout_), tape.parameter(r_), Transpose::no,
                              Transpose::yes),
                       scaling_));
    return add(y, matmul(h, q, Transpose::no, Transpose::yes));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(r_ ? 2 : 1);
    list[0].name = "deft_P";
    list[0].parameter = p_;
    if (r_) {
      list[1].name = "deft_R";
      list[1].parameter = r_;
    }
    return list;
  }

 private:
  bool qr_;
  double dropout_;
  T scaling_ = 1;
  BasicParameter<T> p_, r_;
};

using DEFT = BasicDEFT<float>;

}  // namespace graft::inline v0_1
