#pragma once

#include <cmath>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/adapted.hpp"
#include "graft/adapters/low_rank/lora_factors.hpp"

namespace graft::inline v0_1 {

/// `monteclora_config` of LoRA's configuration, names as in PEFT.
struct MonteCLoRAConfig {
  Index samples = 8;
  bool use_entropy = false;  ///< adds Σ w² to the loss
  double dirichlet_prior = 0.1;
  double sample_scaler = 1e-4;
  double kl_loss_weight = 1e-5;
  Index buffer_size = 150;  ///< PEFT draws so many samples ahead; here they are drawn when needed

  template <class Visitor>
  void fields(Visitor& v) {
    v("num_samples", samples);
    v("use_entropy", use_entropy);
    v("dirichlet_prior", dirichlet_prior);
    v("sample_scaler", sample_scaler);
    v("kl_loss_weight", kl_loss_weight);
    v("buffer_size", buffer_size);
  }
  void validate() const {
    if (samples < 1 || !(dirichlet_prior > 0) || buffer_size < 1)
      throw ValueError(concat("MonteCLoRA: num_samples ", samples, ", dirichlet_prior ",
                              dirichlet_prior, ", buffer_size ", buffer_size,
                              ", expected more than 0"));
  }
};

namespace detail {

/// ψ(x) and ψ′(x) for x > 0: recurrence to x ≥ 8, then the asymptotic series.
inline std::pair<double, double> digamma_and_slope(double x) {
  double value = 0, slope = 0;
  for (; x < 8; ++x) {
    value -= 1 / x;
    slope += 1 / (x * x);
  }
  const double y = 1 / (x * x);
  value += std::log(x) - 0.5 / x - y * (1.0 / 12 - y * (1.0 / 120 - y * (1.0 / 252 - y / 240)));
  slope += 1 / x + 0.5 * y +
           y / x * (1.0 / 6 - y * (1.0 / 30 - y * (1.0 / 42 - y * (1.0 / 30 - y * 5.0 / 66))));
  return {value, slope};
}

/// KL(Dirichlet(α) ‖ Dirichlet(c, …, c)), one element; α: [n].
template <std::floating_point T>
BasicVar<T> dirichlet_divergence(const BasicVar<T>& alpha, double c) {
  const Index n = alpha.size();
  double total = 0, excess = 0;
  for (const T a : alpha.value()) {
    total += static_cast<double>(a);
    excess += static_cast<double>(a) - c;
  }
  const auto [sum_value, sum_slope] = digamma_and_slope(total);
  double kl = std::lgamma(total) - std::lgamma(c * static_cast<double>(n));
  auto slopes = BasicTensor<T>::empty({n});
  for (Index i = 0; i < n; ++i) {
    const double a = static_cast<double>(alpha.value()[i]);
    const auto [value, slope] = digamma_and_slope(a);
    kl += std::lgamma(c) - std::lgamma(a) + (a - c) * (value - sum_value);
    slopes[i] = static_cast<T>((a - c) * slope - sum_slope * excess);
  }
  return alpha.tape().record(BasicTensor<T>::full({1}, static_cast<T>(kl)), alpha.requires_grad(),
                             [g = alpha.grad_ref(), slopes](const BasicTensor<T>& dy) {
                               T* d = g.accumulator();
                               for (Index i = 0; i < slopes.size(); ++i) d[i] += dy[0] * slopes[i];
                             });
}

}  // namespace detail

/// MonteCLoRA: LoRA whose A is averaged over random perturbations while it trains,
/// y = base(x) + s · drop(x) Âᵀ Bᵀ, Â = A + c (Σ_k w_k Z_k)ᵀ diag(√v), c = sample_scaler.
///
/// Z_k [in, rank] ~ N(0, 1), K of them; v_j = max(e^{2 σ_j} X_j, 10⁻³), X_j ~ χ²(rank), the
/// diagonal of a Wishart matrix; w = softmax(μ + L ζ), ζ ~ N(0, 1), the Laplace approximation of
/// Dirichlet(e^ω). σ: [rank], ω: [K]; trained: rank (in + out + 1) + K. Outside of training it is
/// LoRA, and merges as LoRA. Loss, mean over the sites: kl_loss_weight (KL of Dirichlet, Wishart
/// and normal to their priors) [+ Σ w²]. Source: Sengupta et al. 2024 (arXiv:2411.04358), section
/// 3. Deviation: PEFT's divergence of the Dirichlet has the signs of the terms ln Γ(α_k) turned;
/// here it is the divergence. Tensors: as LoRA and lora_monteclora_sampler.{std_prior,
/// expert_weights_prior, gaussian_var_prior, expert_weights}, the last two the newest v and w.
template <std::floating_point T>
class BasicMonteCLoRA {
 public:
  using Scalar = T;
  using Config = LoRAConfig;

  BasicMonteCLoRA(const LoRAConfig& config, const LinearSiteInfo<T>& site, InitContext<T>& context)
      : factors_("monteclora_config", config, site, context),
        options_(nested_config<MonteCLoRAConfig>("monteclora_config", config.monteclora_config)),
        sites_(static_cast<T>(std::max<std::size_t>(1, site.all_sites.size()))),
        sample_(std::make_shared<Sample>()) {
    const Index r = factors_.rank, k = options_.samples;
    auto deviation = BasicTensor<T>::zeros({r}), weights = BasicTensor<T>::zeros({k});
    if (!context.loading) {
      context.generator.uniform(deviation.data(), r, 0, 1);
      context.generator.uniform(weights.data(), k, 0, 1);
    }
    deviation_ = BasicParameter<T>(deviation);
    weights_ = BasicParameter<T>(weights);
    last_variance_ = BasicParameter<T>(BasicTensor<T>::identity(r), false);
    last_weights_ = BasicParameter<T>(BasicTensor<T>::full({k}, T{1} / static_cast<T>(k)), false);
  }

  template <Linear L>
  BasicVar<T> apply(const L& base, const BasicVar<T>& x) const {
    auto& tape = x.tape();
    auto a = tape.parameter(factors_.a);
    if (tape.training()) a = perturbed(a, x.cols());
    return factors_.with_bias(linear_low_rank(base, x, graft::dropout(x, factors_.dropout), a,
                                              tape.parameter(factors_.b), factors_.scaling));
  }
  BasicVar<T> auxiliary_loss(BasicTape<T>& tape) const {
    if (!tape.training()) return {};
    const T r = static_cast<T>(factors_.rank), k = static_cast<T>(options_.samples);
    const auto sigma = tape.parameter(deviation_);
    const auto dirichlet =
        detail::dirichlet_divergence(exp(tape.parameter(weights_)), options_.dirichlet_prior);
    const auto spread = [&](const BasicVar<T>& v) {  // Σ v − ln v − 1
      return add_scalar(sum(sub(v, log(v))), -r);
    };
    const auto wishart = graft::scale(spread(exp(graft::scale(sigma, 2))), T{0.5} * r);
    const auto normal =
        graft::scale(spread(sample_->chi ? variance(tape)
                                         : tape.constant(BasicTensor<T>::full(sigma.shape(), 1))),
                     T{0.5} * k);
    auto loss =
        graft::scale(add(add(reshape(dirichlet, {}), reshape(wishart, {})), reshape(normal, {})),
                     static_cast<T>(options_.kl_loss_weight));
    if (options_.use_entropy) {
      const auto w = sample_->zeta ? mixture(tape) : tape.constant(last_weights_.value());
      loss = add(loss, reshape(sum(square(w)), {}));
    }
    return graft::scale(loss, 1 / sites_);
  }
  std::vector<AdapterTensor<T>> tensors() const {
    auto list = factors_.tensors();
    const auto entry = [&](const char* name, const BasicParameter<T>& p) {
      list.push_back({.name = std::string("lora_monteclora_sampler.") + name,
                      .parameter = p,
                      .index = {},
                      .file_shape = {}});
    };
    entry("std_prior", deviation_);
    entry("expert_weights_prior", weights_);
    entry("gaussian_var_prior", last_variance_);
    entry("expert_weights", last_weights_);
    return list;
  }

 private:
  /// The newest draws that the loss looks at too.
  struct Sample {
    BasicTensor<T> chi;   ///< χ² numbers, [rank]
    BasicTensor<T> zeta;  ///< [K]
  };

  BasicVar<T> variance(BasicTape<T>& tape) const {
    return clamp(mul(exp(graft::scale(tape.parameter(deviation_), 2)), tape.constant(sample_->chi)),
                 static_cast<T>(1e-3), std::numeric_limits<T>::max());
  }
  BasicVar<T> mixture(BasicTape<T>& tape) const {
    constexpr T eps = static_cast<T>(1e-6), top = std::numeric_limits<T>::max();
    const T k = static_cast<T>(options_.samples);
    const auto alpha = clamp(exp(tape.parameter(weights_)), eps, top);
    const auto logs = log(alpha);
    const auto inverse = div(tape.constant(BasicTensor<T>::full(alpha.shape(), 1)), alpha);
    const auto spread = clamp(add(graft::scale(inverse, 1 - 2 / k),
                                  reshape(graft::scale(sum(inverse), 1 / (k * k)), {1})),
                              eps, top);
    const auto logits = add(mul(sqrt(add_scalar(spread, eps)), tape.constant(sample_->zeta)),
                            sub(logs, reshape(mean(logs), {1})));
    return softmax(logits);
  }
  BasicVar<T> perturbed(const BasicVar<T>& a, Index in) const {
    auto& tape = a.tape();
    const Index r = factors_.rank, k = options_.samples;
    TorchGenerator generator(tape.next_random_key());
    auto z = BasicTensor<T>::empty({k, in * r});
    generator.normal(z.data(), z.size());
    auto chi = BasicTensor<T>::zeros({r}), zeta = BasicTensor<T>::empty({k});
    generator.normal(zeta.data(), k);
    auto squares = BasicTensor<T>::empty({r, r});
    generator.normal(squares.data(), squares.size());
    for (Index i = 0; i < r; ++i)
      chi[i] = kernels::dot(squares.data() + i * r, squares.data() + i * r, r);
    sample_->chi = chi;
    sample_->zeta = zeta;
    const auto v = variance(tape), w = mixture(tape);
    auto diagonal = BasicTensor<T>::zeros({r, r});
    for (Index i = 0; i < r; ++i) diagonal(i, i) = v.value()[i];
    last_variance_.assign(diagonal);
    last_weights_.assign(w.value().clone());
    const auto noise = reshape(matmul(reshape(w, {1, k}), tape.constant(z)), {in, r});
    return add(
        a, graft::scale(transpose(mul(noise, sqrt(v))), static_cast<T>(options_.sample_scaler)));
  }

  LoRAFactors<T> factors_;
  MonteCLoRAConfig options_;
  T sites_;
  std::shared_ptr<Sample> sample_;
  BasicParameter<T> deviation_, weights_, last_variance_, last_weights_;
};

using MonteCLoRA = BasicMonteCLoRA<float>;

}  // namespace graft::inline v0_1
