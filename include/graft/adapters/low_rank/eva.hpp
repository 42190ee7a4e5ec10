#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/config_value.hpp"
#include "graft/base/order.hpp"
#include "graft/config.hpp"
#include "graft/tensor/decompositions.hpp"

namespace graft::inline v0_1 {

/// `eva_config` of LoRA's configuration, names as in PEFT.
struct EvaConfig {
  double rho = 2;              ///< a layer may get rho times its rank
  double tau = 0.99;           ///< cosine of old and new direction from which on it has converged
  bool use_label_mask = true;  ///< leave out tokens without a label
  Index label_mask_value = -100;
  bool whiten = false;                 ///< divide each direction by the root of its singular value
  bool adjust_scaling_factors = true;  ///< keep alpha / rank where the rank changes

  template <class Visitor>
  void fields(Visitor& v) {
    v("rho", rho);
    v("tau", tau);
    v("use_label_mask", use_label_mask);
    v("label_mask_value", label_mask_value);
    v("whiten", whiten);
    v("adjust_scaling_factors", adjust_scaling_factors);
  }
  void validate() const {
    if (!(rho >= 1)) throw ValueError(concat("EVA: rho ", rho, ", expected at least 1"));
    if (!(tau >= 0 && tau <= 1)) throw ValueError(concat("EVA: tau ", tau, ", expected [0, 1]"));
  }
};

/// Principal components of data that comes in batches: each batch joins the components so far,
/// scaled by their singular values, and a correction of the mean. Source: Ross et al. 2008
/// ("Incremental learning for robust visual tracking"), as scikit-learn has it.
template <std::floating_point T>
class IncrementalPca {
 public:
  explicit IncrementalPca(Index components) : count_(components) {}

  /// Takes in a batch [n, features]. False, and nothing happens, if it has fewer rows than there
  /// are components. @throws ShapeError for another number of features, or fewer than components
  bool add(const BasicTensor<T>& x);

  bool empty() const { return !components_; }
  const BasicTensor<T>& components() const { return components_; }  ///< [components, features]
  const BasicTensor<T>& singular_values() const { return values_; }
  /// Share of the variance that each component explains.
  const std::vector<double>& explained() const { return explained_; }

 private:
  Index count_, seen_ = 0;
  double spread_ = 0;  ///< sum of squared distances from the mean
  std::vector<double> mean_, explained_;
  BasicTensor<T> components_, values_;
};

/// How many components each layer gets of `budget`: the largest shares over all layers, earlier
/// layers first among equal ones. `shares`: one list a layer. Source: Paischer et al. 2024
/// (arXiv:2410.07170), section 3.3.
GRAFT_KERNEL std::vector<Index> eva_ranks(const std::vector<std::vector<double>>& shares,
                                          Index budget);

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/adapters/low_rank/impl/eva_impl.hpp"
#endif
