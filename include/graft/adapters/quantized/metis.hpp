#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "graft/adapters/method.hpp"
#include "graft/adapters/root.hpp"
#include "graft/quant/spectral.hpp"

namespace graft::inline v0_1 {

/// Configuration of Metis.
struct MetisConfig {
  Index rank = 60;
  Index block_size = 16;          ///< of quant::fp4_blocks and quant::spectral_quantise
  Index schedule_from = 5;        ///< of quant::spectral_quantise, for gradients
  double regulariser_weight = 0;  ///< λ
  double large_weight = 1;        ///< α₁
  double small_weight = 1;        ///< α₂
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "METIS";

  template <class Visitor>
  void fields(Visitor& v) {
    v("rank", rank);
    v("block_size", block_size);
    v("schedule_from", schedule_from);
    v("regulariser_weight", regulariser_weight);
    v("large_weight", large_weight);
    v("small_weight", small_weight);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for a rank or block below one.
  void validate() const {
    if (rank < 1 || block_size < 1)
      throw ValueError(concat("Metis: rank ", rank, " and blocks of ", block_size));
  }
};

/// Metis, the weight form: y = ((x Vᵀ) ⊙ s) Uᵀ + x Rᵀ + b, W = U diag(s) V + R at the start, all of
/// it trained.
///
/// U: [out, k], s: [k], V: [k, in]: the first k = min(rank, out, in) singular vectors and values of
/// the frozen weight, R: [out, in]: the rest; b: [out], where the layer has one, in place of the
/// frozen one. Trained: k (in + out + 1) + out in + out. Auxiliary loss (dual range, λ = 0 by
/// default): λ Σ over the matrices of mean(α₁ p² + α₂ (p + 1e-6)⁻²). The identity at the start up
/// to rounding; merges. Values are computed in full precision: quant::fp4_blocks and
/// quant::spectral_quantise are what low-bit training puts around the products. Source: Cao et al.
/// 2025 (arXiv:2509.00404), §3. Tensors: metis_U, metis_S, metis_V, metis_residual, bias.
template <std::floating_point T>
class BasicMetis {
 public:
  using Scalar = T;
  using Config = MetisConfig;

  static MethodInfo info() {
    return {.peft_type = "METIS",
            .name = "Metis",
            .family = "quantized",
            .paper = "arXiv:2509.00404",
            .sites = "linear",
            .parameters = "k (in + out + 1) + out in + bias out, k = min(rank, in, out)",
            .in_peft = false};
  }

  BasicMetis(const MetisConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : config_((config.validate(), config)) {
    const Index out = site.out_features, in = site.in_features;
    const Index k = std::min({config.rank, out, in});
    quant::SpectralSplit<T> split{BasicTensor<T>::zeros({out, k}), BasicTensor<T>::zeros({k}),
                                  BasicTensor<T>::zeros({k, in}), BasicTensor<T>::zeros({out, in})};
    if (!context.loading) split = quant::spectral_split(site.weight(), config.rank);
    u_ = BasicParameter<T>(split.u);
    s_ = BasicParameter<T>(split.s);
    v_ = BasicParameter<T>(split.v);
    residual_ = BasicParameter<T>(split.residual);
    if (site.bias) bias_ = BasicParameter<T>(site.bias.clone());
  }
  /// For a layer of one's own.
  template <Linear L>
  BasicMetis(const MetisConfig& config, const L& base)
      : BasicMetis(config, with_bias(base), StandaloneInit<T>(0).context()) {}

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    const auto h =
        mul(matmul(x, tape.parameter(v_), Transpose::no, Transpose::yes), tape.parameter(s_));
    auto y = add(matmul(h, tape.parameter(u_), Transpose::no, Transpose::yes),
                 matmul(x, tape.parameter(residual_), Transpose::no, Transpose::yes));
    if (bias_ && bias_of(base)) y = add(y, tape.parameter(bias_));
    if (!detail::has_adapters_below(base)) return y;
    return add(linear(base, x), sub(y, linear(detail::root_of(base), x)));
  }
  BasicVar<T> auxiliary_loss(BasicTape<T>& tape) const {
    if (config_.regulariser_weight == 0) return {};
    BasicVar<T> total;
    for (const auto& p : {u_, v_, residual_}) {
      const auto w = tape.parameter(p);
      const auto one = tape.constant(BasicTensor<T>::scalar(1));
      const auto inverse = div(one, square(add_scalar(w, static_cast<T>(1e-6))));
      const auto term = mean(add(scale(square(w), static_cast<T>(config_.large_weight)),
                                 scale(inverse, static_cast<T>(config_.small_weight))));
      total = total ? add(total, term) : term;
    }
    return scale(total, static_cast<T>(config_.regulariser_weight));
  }
  std::vector<AdapterTensor<T>> tensors() const {
    std::vector<AdapterTensor<T>> list(bias_ ? 5 : 4);
    list[0].name = "metis_U";
    list[0].parameter = u_;
    list[1].name = "metis_S";
    list[1].parameter = s_;
    list[2].name = "metis_V";
    list[2].parameter = v_;
    list[3].name = "metis_residual";
    list[3].parameter = residual_;
    if (bias_) {
      list[4].name = "bias";
      list[4].parameter = bias_;
    }
    return list;
  }

 private:
  template <Linear L>
  static LinearSiteInfo<T> with_bias(const L& base) {
    auto site = site_info(base);
    site.bias = bias_of(base);
    return site;
  }

  MetisConfig config_;
  BasicParameter<T> u_, s_, v_, residual_, bias_;
};

using Metis = BasicMetis<float>;

}  // namespace graft::inline v0_1
