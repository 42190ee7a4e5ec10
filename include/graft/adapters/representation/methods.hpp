#pragma once

#include "graft/adapters/method.hpp"
#include "graft/adapters/representation/shadow.hpp"

namespace graft {

/// Methods that edit hidden states along the stack of blocks.
template <std::floating_point T>
using RepresentationMethods = MethodList<ShadowMethod<T>>;

}  // namespace graft
