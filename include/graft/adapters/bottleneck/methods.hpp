#pragma once

#include "graft/adapters/bottleneck/houlsby.hpp"
#include "graft/adapters/bottleneck/parallel.hpp"
#include "graft/adapters/bottleneck/pfeiffer.hpp"
#include "graft/adapters/method.hpp"

namespace graft {

/// Bottleneck adapters.
template <std::floating_point T>
using BottleneckMethods =
    MethodList<HoulsbyMethod<T>, PfeifferMethod<T>, ParallelAdapterMethod<T>>;

}  // namespace graft
