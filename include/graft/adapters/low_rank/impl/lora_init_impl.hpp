#pragma once

#include <charconv>
#include <cmath>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

#include "graft/adapters/low_rank/lora_init.hpp"

namespace graft::inline v0_1::detail {

/// N of "pissa_niter_N"; empty for other words.
inline std::optional<int> pissa_iterations(const std::string& name) {
  static constexpr std::string_view kPrefix = "pissa_niter_";
  if (!name.starts_with(kPrefix)) return {};
  const char* const end = name.data() + name.size();
  int n = 0;
  const auto [stop, error] = std::from_chars(name.data() + kPrefix.size(), end, n);
  if (error != std::errc() || stop != end || n < 0) return {};
  return n;
}

}  // namespace graft::inline v0_1::detail

namespace graft::inline v0_1 {

template <std::floating_point T>
LowRankFactors<T> initial_factors(const LoRAConfig& config, const LinearSiteInfo<T>& site,
                                  InitContext<T>& context) {
  const Index r = config.rank, in = site.in_features, out = site.out_features;
  const Index copies = std::max<Index>(1, site.expert.count);
  const Index a_rows = r * copies, b_cols = r * copies / site.conv.groups;
  const auto zeros = [](Index rows, Index cols) { return BasicTensor<T>::zeros({rows, cols}); };
  if (context.loading) {
    LowRankFactors<T> f{zeros(a_rows, in), zeros(out, b_cols), {}};
    if (config.lora_bias) f.bias = BasicTensor<T>::zeros({out});
    return f;
  }
  auto& rng = context.generator;
  const T s = static_cast<T>(config.scaling());

  const auto* flag = config.init_lora_weights.template get_if<bool>();
  const auto* word = config.init_lora_weights.template get_if<std::string>();
  LowRankFactors<T> f;
  f.a = detail::kaiming_uniform_tensor<T>(rng, {a_rows, in}, in);
  f.b = detail::kaiming_uniform_tensor<T>(rng, {out, b_cols}, b_cols);
  if (config.lora_bias) f.bias = detail::kaiming_uniform_tensor<T>(rng, {out}, b_cols);
  if (flag != nullptr && !*flag) return f;
  f.b = zeros(out, b_cols);
  if (f.bias) f.bias = BasicTensor<T>::zeros({out});
  if (flag != nullptr) {
    f.a = detail::kaiming_uniform_tensor<T>(rng, {a_rows, in}, in);
    return f;
  }
  const std::string name = word == nullptr ? "null" : *word;
  if (name == "gaussian") {
    f.a = detail::normal_tensor<T>(rng, {a_rows, in}, 1.0 / static_cast<double>(r));
    return f;
  }
  if (copies > 1 || site.conv.groups > 1)
    throw ValueError(concat("LoRA: init '", name, "' of ", site.path,
                            ", expected true, false or gaussian for experts and grouped "
                            "convolutions"));
  if (name == "orthogonal") {
    if (r % 2 != 0) throw ValueError(concat("LoRA: orthogonal init needs an even rank, got ", r));
    const auto q = qr(detail::normal_tensor<T>(rng, {r, r}, 1)).q;
    auto odd = BasicTensor<T>::empty({r / 2, r}), even = BasicTensor<T>::empty({r / 2, r});
    for (Index i = 0; i < r / 2; ++i)
      for (Index j = 0; j < r; ++j) {
        even(i, j) = q(2 * i, j);
        odd(i, j) = q(2 * i + 1, j);
      }
    const auto ga = detail::normal_tensor<T>(rng, {in, r / 2}, 1);
    const auto gb = detail::normal_tensor<T>(rng, {r / 2, out}, 1);
    f.a = detail::product(even, ga, T{1}, true, true);
    f.b = detail::product(gb, odd, T{1}, true, false);
    for (T& v : f.a) v /= 10;
    for (T& v : f.b) v /= 10;
    return f;
  }
  const Index limit = std::min(in, out);
  const auto check = [&] {
    if (r > limit)
      throw ValueError(concat("LoRA: init '", name, "' of ", site.path, " needs a rank of at most ",
                              limit, ", got ", r));
    if (!site.weight)
      throw ValueError(concat("LoRA: init '", name, "' needs the weight of ", site.path));
  };
  f.a = zeros(r, in);
  if (name == "mica") {
    check();
    const auto d = svd(site.weight());
    for (Index o = 0; o < out; ++o)
      for (Index k = 0; k < r; ++k) f.b(o, k) = d.u(o, limit - r + k);
    return f;
  }
  const bool from_data = name == "eva" || name == "corda" || name == "lora_ga";
  const SiteStatistics<T>* statistics = nullptr;
  if (from_data) {
    if (context.calibration != nullptr)
      if (const auto it = context.calibration->find(site.path); it != context.calibration->end())
        statistics = &it->second;
    if (statistics == nullptr)
      throw ValueError(concat("LoRA: init '", name, "' needs calibration data for ", site.path,
                              "; make the adapter with add_calibrated"));
  }
  if (name == "eva") {
    const auto& directions = statistics->directions;
    if (!directions || directions.rows() < r || directions.cols() != in)
      throw ValueError(concat("LoRA: init 'eva' of ", site.path, " has no ", r, " directions"));
    std::copy_n(directions.data(), r * in, f.a.data());
    return f;
  }
  const std::optional<int> iterations = detail::pissa_iterations(name);
  if (name == "pissa" || iterations || name == "olora" || name == "loftq" || from_data) {
    check();
    if (!site.replace_weight)
      throw ValueError(concat("LoRA: init '", name, "' rewrites the weight of ", site.path,
                              ", whose format cannot hold the rest; dequantise the base first"));
    auto w = site.weight().clone();
    if (name == "loftq") {
      const auto options = nested_config<LoftQConfig>("loftq_config", config.loftq_config);
      if (!context.quantise)
        throw ValueError(concat("LoRA: init 'loftq' of ", site.path, " without a quantiser"));
      site.replace_weight(loftq_factors<T>(
          w, options.iterations, s,
          [&](const BasicTensor<T>& rest) { return context.quantise(rest, options.bits); }, f.a,
          f.b));
      return f;
    }
    if (name == "corda") {
      if (!statistics->covariance)
        throw ValueError(concat("LoRA: init 'corda' of ", site.path, " has no covariance"));
      corda_factors(w, statistics->covariance,
                    nested_config<CordaConfig>("corda_config", config.corda_config), s, f.a, f.b);
    } else if (name == "lora_ga") {
      if (!statistics->gradient)
        throw ValueError(concat("LoRA: init 'lora_ga' of ", site.path, " has no gradient"));
      lora_ga_factors(w, statistics->gradient,
                      nested_config<LoRAGAConfig>("lora_ga_config", config.lora_ga_config), s, rng,
                      f.a, f.b);
    } else if (name == "pissa" || iterations) {
      const auto d = iterations ? randomized_svd(w, r, *iterations, rng) : svd(w);
      for (Index k = 0; k < r; ++k) {
        const T root = std::sqrt(d.s[k] / s);
        for (Index i = 0; i < in; ++i) f.a(k, i) = root * d.v(i, k);
        for (Index o = 0; o < out; ++o) f.b(o, k) = root * d.u(o, k);
      }
    } else {
      const auto d = qr(w);
      for (Index k = 0; k < r; ++k) {
        std::copy_n(d.r.data() + k * in, in, f.a.data() + k * in);
        for (Index o = 0; o < out; ++o) f.b(o, k) = d.q(o, k);
      }
    }
    kernels::gemm(false, false, out, in, r, -s, f.b.data(), r, f.a.data(), in, T{1}, w.data(), in);
    site.replace_weight(w);
    return f;
  }
  throw ValueError(concat(
      "LoRA: init_lora_weights '", name,
      "', expected true, false, gaussian, orthogonal, pissa, pissa_niter_N, olora, mica, eva, "
      "corda, lora_ga or loftq"));
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T)                                                              \
  template LowRankFactors<T> initial_factors(const LoRAConfig&, const LinearSiteInfo<T>&, \
                                             InitContext<T>&);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1
