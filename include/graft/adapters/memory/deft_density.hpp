#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/plain_lora.hpp"
#include "graft/autograd/ops/reduce.hpp"

namespace graft::inline v0_1 {

/// Configuration of DEFT's density loss around LoRA.
struct DEFTDensityConfig {
  Index rank = 8;
  double alpha = 8;
  double dropout = 0;
  double epsilon = 1e-7;
  double density_weight = 1;
  bool exclude_padding = false;
  double density_threshold = 0;  ///< of `activation_density`, a number to look at
  TargetModules target_modules = {};
  Selection select = {};

  static constexpr const char* kPeftType = "DEFT_DENSITY";

  template <class Visitor>
  void fields(Visitor& v) {
    v("r", rank);
    v("lora_alpha", alpha);
    v("lora_dropout", dropout);
    v("epsilon", epsilon);
    v("density_weight", density_weight);
    v("exclude_padding", exclude_padding);
    v("density_threshold", density_threshold);
    v("target_modules", target_modules);
    select.fields(v);
  }
  /// @throws ValueError for an epsilon that is not positive
  void validate() const {
    if (!(epsilon > 0)) throw ValueError(concat("DEFT: epsilon ", epsilon));
  }
};

/// mean(a² / (a² + ε)): nearly the share of entries that are not zero, and smooth. `tokens`: one
/// number a row of a, rows with 0 do not count; empty: all do. @throws ShapeError for another
/// number of rows
template <std::floating_point T>
BasicVar<T> density_penalty(const BasicVar<T>& a, double epsilon,
                            const std::vector<unsigned char>& tokens = {}) {
  const auto squares = square(a);
  auto share = div(squares, add_scalar(squares, static_cast<T>(epsilon)));
  if (tokens.empty()) return mean(share);
  if (std::ssize(tokens) != a.rows())
    throw ShapeError(concat("density_penalty: ", tokens.size(), " tokens for ", a.rows(), " rows"));
  auto weight = BasicTensor<T>::empty({a.rows(), 1});
  const auto real = static_cast<double>(
      std::count_if(tokens.begin(), tokens.end(), [](unsigned char t) { return t != 0; }));
  for (Index i = 0; i < a.rows(); ++i)
    weight[i] = tokens[static_cast<std::size_t>(i)] != 0
                    ? static_cast<T>(1 / (std::max(1.0, real) * static_cast<double>(a.cols())))
                    : T{0};
  share = reshape(share, {a.rows(), a.cols()});
  return sum(mul(share, a.tape().constant(weight)));
}

/// Share of the entries of more than a threshold in size; `tokens` as for the penalty.
template <std::floating_point T>
double activation_density(const BasicTensor<T>& a, double threshold,
                          const std::vector<unsigned char>& tokens = {}) {
  double dense = 0, all = 0;
  for (Index i = 0; i < a.size(); ++i) {
    if (!tokens.empty() && tokens.at(static_cast<std::size_t>(i / a.cols())) == 0) continue;
    ++all;
    if (std::abs(static_cast<double>(a[i])) > threshold) ++dense;
  }
  return all > 0 ? dense / all : 0;
}

/// Looks at the input of the last layer of a feed-forward network and adds its penalty to the loss.
template <std::floating_point T>
class DensityWatch final : public LinearPart<T> {
 public:
  /// `share` of the penalty goes into the loss.
  DensityWatch(const DEFTDensityConfig& config, double share) : config_(config), share_(share) {}

  std::vector<AdapterTensor<T>> tensors() const override { return {}; }
  BasicVar<T> apply(const BasicLinearView<T>& base, const BasicVar<T>& x) const override {
    seen_ = x;
    return linear(base, x);
  }
  /// Of the last forward pass, once; none with λ = 0, when only the numbers below are taken.
  BasicVar<T> auxiliary_loss(BasicTape<T>& tape) const override {
    const auto x = std::exchange(seen_, BasicVar<T>{});
    if (!x || &x.tape() != &tape) return {};
    std::vector<unsigned char> tokens;
    if (config_.exclude_padding)
      if (const auto* context = tape.template context<ForwardContext>())
        tokens = context->token_mask;
    const auto penalty =
        density_penalty(share_ == 0 ? tape.constant(x.value()) : x, config_.epsilon, tokens);
    penalty_ = static_cast<double>(penalty.item());
    density_ = activation_density(x.value(), config_.density_threshold, tokens);
    if (share_ == 0) return {};
    return scale(penalty, static_cast<T>(share_));
  }
  /// What the last loss was made of: the penalty of this network alone, and the density.
  double last_penalty() const { return penalty_; }
  double last_density() const { return density_; }

 private:
  DEFTDensityConfig config_;
  double share_;
  mutable BasicVar<T> seen_;
  mutable double penalty_ = 0, density_ = 0;
};

/// DEFT: LoRA, and λ · mean over the blocks of mean(a² / (a² + ε)) in the loss, a the inner
/// activations of a block's feed-forward network (what its last layer reads, in gated networks the
/// product).
///
/// Trained: r (in + out) a layer, as LoRA. With λ = 0 plain LoRA. Encoder-decoder models: the mean
/// over the encoder's blocks and that over the decoder's. The identity at the start; merges as
/// LoRA. The gradient of the penalty, 2 a ε / (a² + ε)², is visible near |a| ~ √ε only: take a
/// larger ε (1e-3) for GELU-like activations. Source: Runwal et al. 2024 (arXiv:2402.01911).
/// Tensors: lora_A.weight, lora_B.weight.
template <std::floating_point T>
struct DEFTDensityMethod {
  using Scalar = T;
  using Config = DEFTDensityConfig;

  static MethodInfo info() {
    return {.peft_type = "DEFT_DENSITY",
            .name = "DEFT (activation density)",
            .family = "memory",
            .paper = "arXiv:2402.01911",
            .sites = "linear",
            .parameters = "r (in + out)",
            .in_peft = false};
  }
  static std::shared_ptr<LinearPart<T>> linear(const Config& config, const LinearSiteInfo<T>& site,
                                               InitContext<T>& context) {
    config.validate();
    return linear_part(
        detail::PlainLoRA<T>(config.rank, config.alpha, config.dropout, site, context));
  }
  template <class Set>
  static void finish(const Config& config, Set& set, BasicSiteTable<T>& table, InitContext<T>&) {
    const auto sites = detail::last_feed_forward_layers(table);
    const auto in_decoder = [&](const auto* site) {
      return table.info.encoder_decoder && site->path().find("decoder") != std::string::npos;
    };
    for (auto* site : sites) {
      const auto beside = std::count_if(sites.begin(), sites.end(), [&](const auto* other) {
        return in_decoder(other) == in_decoder(site);
      });
      const auto watch = std::make_shared<DensityWatch<T>>(
          config, config.density_weight / static_cast<double>(beside));
      site->adapters().push_back({set.name(), watch});
      set.add_part(site->path(), watch);
    }
  }
};

}  // namespace graft::inline v0_1
