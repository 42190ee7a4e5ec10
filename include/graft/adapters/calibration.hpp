#pragma once

#include <map>
#include <string>

#include "graft/tensor/tensor.hpp"

namespace graft::inline v0_1 {

/// What runs over calibration data found out about one linear layer, for inits that depend on it.
/// Each init reads its own field.
template <std::floating_point T>
struct SiteStatistics {
  BasicTensor<T> directions;  ///< of the inputs, the most important first: [n, in] (EVA)
  BasicTensor<T> covariance;  ///< of the inputs: [in, in] (CorDA)
  BasicTensor<T> gradient;    ///< of the weight: [out, in] (LoRA-GA)
};

/// The same by the paths of the layers.
template <std::floating_point T>
using Calibration = std::map<std::string, SiteStatistics<T>>;

}  // namespace graft::inline v0_1
