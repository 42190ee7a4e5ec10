#pragma once

#include "graft/adapters/elementwise/beft.hpp"
#include "graft/adapters/elementwise/bitfit.hpp"
#include "graft/adapters/elementwise/difffit.hpp"
#include "graft/adapters/elementwise/ia3.hpp"
#include "graft/adapters/elementwise/ln_tuning.hpp"
#include "graft/adapters/elementwise/road.hpp"
#include "graft/adapters/elementwise/ssf.hpp"

namespace graft::inline v0_1 {

/// Methods of the elementwise family.
template <std::floating_point T>
using ElementwiseMethods =
    MethodList<LinearMethod<BasicIA3<T>>, LNTuningMethod<T>, LinearMethod<BasicBEFT<T>>,
               LinearMethod<BasicRoAd<T>>, SSFMethod<T>, BitFitMethod<T>, DiffFitMethod<T>>;

}  // namespace graft::inline v0_1
