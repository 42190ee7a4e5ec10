#pragma once

#include "graft/adapters/memory/s2a.hpp"
#include "graft/adapters/memory/side_tuning.hpp"
#include "graft/adapters/method.hpp"

namespace graft::inline v0_1 {

/// Methods that keep little for the backward pass.
template <std::floating_point T>
using MemoryMethods = MethodList<LinearMethod<BasicSideTuning<T>>, S2AMethod<T>>;

}  // namespace graft::inline v0_1
