#pragma once

#include "graft/adapters/method.hpp"
#include "graft/adapters/selection/trainable_tokens.hpp"

namespace graft {

/// Methods of the selection family.
template <std::floating_point T>
using SelectionMethods = MethodList<TrainableTokensMethod<T>>;

}  // namespace graft
