#pragma once

#include "graft/adapters/method.hpp"
#include "graft/adapters/spectral/soda.hpp"
#include "graft/adapters/spectral/svfit.hpp"
#include "graft/adapters/spectral/svft.hpp"

namespace graft::inline v0_1 {

/// Methods in the basis of the singular vectors of a weight.
template <std::floating_point T>
using SpectralMethods =
    MethodList<LinearMethod<BasicSVFT<T>>, LinearMethod<BasicSVFit<T>>, SODAMethod<T>>;

}  // namespace graft::inline v0_1
