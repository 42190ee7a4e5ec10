#pragma once

#include <string>

#include "graft/adapters/config_value.hpp"
#include "graft/base/rng.hpp"
#include "graft/config.hpp"
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
  void validate() const;
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
                     BasicTensor<T>& a, BasicTensor<T>& b);

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/adapters/low_rank/impl/lora_ga_impl.hpp"
#endif
