#pragma once

#include "graft/adapters/memory/deft_density.hpp"
#include "graft/adapters/memory/lemo.hpp"
#include "graft/adapters/memory/lst.hpp"
#include "graft/adapters/memory/meft.hpp"
#include "graft/adapters/memory/pyra.hpp"
#include "graft/adapters/memory/qst.hpp"
#include "graft/adapters/memory/s2a.hpp"
#include "graft/adapters/memory/sherl.hpp"
#include "graft/adapters/memory/side_tuning.hpp"
#include "graft/adapters/method.hpp"

namespace graft::inline v0_1 {

/// Methods that keep little for the backward pass.
template <std::floating_point T>
using MemoryMethods =
    MethodList<DEFTDensityMethod<T>, LeMoMethod<T>, LSTMethod<T>, MEFTMethod<T>, PYRAMethod<T>,
               QSTMethod<T>, LinearMethod<BasicSideTuning<T>>, S2AMethod<T>, SHERLMethod<T>>;

}  // namespace graft::inline v0_1
