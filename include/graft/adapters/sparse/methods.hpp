#pragma once

#include "graft/adapters/method.hpp"
#include "graft/adapters/sparse/c3a.hpp"
#include "graft/adapters/sparse/delora.hpp"
#include "graft/adapters/sparse/fourierft.hpp"
#include "graft/adapters/sparse/frod.hpp"
#include "graft/adapters/sparse/intrinsic_dimension.hpp"
#include "graft/adapters/sparse/miss.hpp"
#include "graft/adapters/sparse/shira.hpp"
#include "graft/adapters/sparse/supertuning.hpp"
#include "graft/adapters/sparse/waveft.hpp"

namespace graft::inline v0_1 {

/// Methods of the sparse and shared-structure family.
template <std::floating_point T>
using SparseMethods =
    MethodList<LinearMethod<BasicMiSS<T>>, LinearMethod<BasicDeLoRA<T>>,
               LinearMethod<BasicFourierFT<T>>, LinearMethod<BasicSHiRA<T>>,
               LinearMethod<BasicC3A<T>>, LinearMethod<BasicWaveFT<T>>, LinearMethod<BasicFRoD<T>>,
               LinearMethod<BasicSupertuning<T>>, LinearMethod<BasicIntrinsicDimension<T>>,
               LinearMethod<BasicSAID<T>>>;

}  // namespace graft::inline v0_1
