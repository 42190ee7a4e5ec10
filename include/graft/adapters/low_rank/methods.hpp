#pragma once

#include "graft/adapters/low_rank/adalora.hpp"
#include "graft/adapters/low_rank/lora_method.hpp"
#include "graft/adapters/method.hpp"

namespace graft {

/// Methods of the low-rank family.
template <std::floating_point T>
using LowRankMethods = MethodList<LoRAMethod<T>, AdaLoRAMethod<T>>;

}  // namespace graft
