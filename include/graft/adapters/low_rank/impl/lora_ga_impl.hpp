#pragma once

#include <cmath>
#include <numeric>

#include "graft/adapters/low_rank/lora_ga.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
void lora_ga_factors(const BasicTensor<T>& w, const BasicTensor<T>& gradient,
                     const LoRAGAConfig& config, T scaling, TorchGenerator& generator,
                     BasicTensor<T>& a, BasicTensor<T>& b) {
  const Index in = w.cols(), out = w.rows(), r = a.rows();
  if (2 * r > std::min(in, out))
    throw ValueError(concat("LoRA-GA: rank ", r, " for a weight ", w.shape().text(),
                            ", expected at most ", std::min(in, out) / 2));
  const auto d = svd(gradient);
  std::vector<Index> of_a(static_cast<std::size_t>(r)), of_b(static_cast<std::size_t>(r));
  std::iota(of_a.begin(), of_a.end(), config.direction == "A2rBr" ? r : 0);
  std::iota(of_b.begin(), of_b.end(), config.direction == "ArB2r" ? r : 0);
  if (config.direction == "ArBr") {
    for (std::size_t k = 0; k < of_a.size(); ++k) {
      of_a[k] = 2 * static_cast<Index>(k) + 1;
      of_b[k] = 2 * static_cast<Index>(k);
    }
  } else if (config.direction == "random") {
    const auto order = generator.randperm(2 * r);
    for (std::size_t k = 0; k < of_a.size(); ++k) of_a[k] = of_b[k] = static_cast<Index>(order[k]);
  }
  T factor_a = 1, factor_b = 1;
  if (config.scale == "stable") {
    factor_b =
        static_cast<T>(std::pow(static_cast<double>(out), 0.25) / std::sqrt(config.stable_gamma));
  } else if (config.scale == "weight_svd") {
    if (d.s[of_b[0]] > 0) factor_b = svd(w).s[0] / d.s[of_b[0]];
  } else if (config.scale == "gd_scale") {
    factor_a = factor_b = 1 / scaling;
  }
  for (Index k = 0; k < r; ++k) {
    const Index ka = of_a[static_cast<std::size_t>(k)], kb = of_b[static_cast<std::size_t>(k)];
    for (Index i = 0; i < in; ++i) a(k, i) = factor_a * d.v(i, ka);
    for (Index o = 0; o < out; ++o) b(o, k) = factor_b * d.s[kb] * d.u(o, kb);
  }
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T)                                                                       \
  template void lora_ga_factors(const BasicTensor<T>&, const BasicTensor<T>&, const LoRAGAConfig&, \
                                T, TorchGenerator&, BasicTensor<T>&, BasicTensor<T>&);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

GRAFT_KERNEL void LoRAGAConfig::validate() const {
  const auto known = [](const std::string& word, std::initializer_list<const char*> words) {
    return std::any_of(words.begin(), words.end(), [&](const char* w) { return word == w; });
  };
  if (!known(direction, {"ArBr", "A2rBr", "ArB2r", "random"}))
    throw ValueError(
        concat("LoRA-GA: direction '", direction, "', expected ArBr, A2rBr, ArB2r or random"));
  if (!known(scale, {"stable", "weight_svd", "gd_scale", "unit"}))
    throw ValueError(
        concat("LoRA-GA: scale '", scale, "', expected stable, weight_svd, gd_scale or unit"));
  if (!(stable_gamma > 0))
    throw ValueError(concat("LoRA-GA: stable_gamma ", stable_gamma, ", expected more than 0"));
}

}  // namespace graft::inline v0_1
