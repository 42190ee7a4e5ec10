#pragma once

#include <string>

#include "graft/adapters/config_value.hpp"
#include "graft/adapters/initial_values.hpp"
#include "graft/config.hpp"
#include "graft/tensor/decompositions.hpp"

namespace graft::inline v0_1 {

/// `corda_config` of LoRA's configuration, names as in PEFT; its files and its half precision are
/// read and kept, but not used.
struct CordaConfig {
  std::string method = "ipm";  ///< ipm: the strongest directions are trained; kpm: the weakest
  /// Of the inputs of a batch: by their largest element, as in PEFT, or none; not a field of
  /// PEFT's.
  std::string normalisation = "largest";

  template <class Visitor>
  void fields(Visitor& v) {
    v("corda_method", method);
    optional_field(v, "normalisation", normalisation, std::string("largest"));
  }
  void validate() const;
};

/// The mean over batches of XᵀX, each batch divided by its largest element first, as in PEFT, or
/// not.
template <std::floating_point T>
class CovarianceMean {
 public:
  explicit CovarianceMean(bool normalise = true) : normalise_(normalise) {}
  /// x: [tokens, in]. @throws ValueError where the largest element is zero or not finite
  void add(const BasicTensor<T>& x);
  /// @throws ValueError for a covariance that is not finite
  BasicTensor<T> value() const;
  bool empty() const { return batches_ == 0; }

 private:
  bool normalise_;
  BasicTensor<T> sum_;
  Index batches_ = 0;
};

/// Factors of CorDA: with C the covariance (damped until it can be inverted), W C = U S Vᵀ and
/// B √s = U_r √S_r, A √s = √S_r V_rᵀ C⁻¹, r the first (ipm) or last (kpm) directions; the weight
/// loses s B A. Source: Yang et al. 2024 (arXiv:2406.05223), eq. 3 to 6.
/// w: [out, in], covariance: [in, in]; a: [rank, in], b: [out, rank].
template <std::floating_point T>
void corda_factors(const BasicTensor<T>& w, const BasicTensor<T>& covariance,
                   const CordaConfig& config, T scaling, BasicTensor<T>& a, BasicTensor<T>& b);

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/adapters/low_rank/impl/corda_impl.hpp"
#endif
