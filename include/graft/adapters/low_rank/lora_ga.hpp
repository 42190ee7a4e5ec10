#pragma once

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <vector>

#include "graft/adapters/config_value.hpp"
#include "graft/base/rng.hpp"
#include "graft/tensor/decompositions.hpp"

namespace graft::inline v0_1 {

/// `lora_ga_config` of LoRA's configuration, names as in PEFT.
struct LoRAGAConfig {
  std::string direction =
      "ArB2r";                   ///< which singular vectors A and B get: also ArBr, A2rBr, random
  std::string scale = "stable";  ///< also weight_svd, gd_scale, unit
  double stable_gamma = 16;

  template <class Visitor>
  void fields(Visitor& v) {
    v("direction", direction);
    v("scale", scale);
    v("stable_gamma", stable_gamma);
  }
  void validate() const {
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
};

/// Factors of LoRA-GA from the gradient G = U S Vᵀ of the weight: A rows of Vᵀ, B columns of U
/// times their singular values, each r of the first 2r; the weight loses s B A.
///
/// ArB2r: A the first r, B the next; A2rBr: the reverse; ArBr: A the odd ones, B the even ones;
/// random: the same r for both. B is scaled by out^¼ / √γ (stable), or so that its first singular
/// value is that of W (weight_svd); gd_scale divides both by s. Source: Wang et al. 2024
/// (arXiv:2407.05000), section 3; the singular values in B are PEFT's. Deviation: an exact
/// decomposition where PEFT takes a randomised one. w, gradient: [out, in]; a: [rank, in], b:
/// [out, rank]. @throws ValueError for 2 rank > min(out, in)
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

}  // namespace graft::inline v0_1
