#pragma once

#include "graft/adapters/method.hpp"
#include "graft/adapters/representation/consreft.hpp"
#include "graft/adapters/representation/direft.hpp"
#include "graft/adapters/representation/lobireft.hpp"
#include "graft/adapters/representation/loreft.hpp"
#include "graft/adapters/representation/noreft.hpp"
#include "graft/adapters/representation/shadow.hpp"

namespace graft::inline v0_1 {

/// Methods that edit hidden states along the stack of blocks.
template <std::floating_point T>
using RepresentationMethods = MethodList<LoReftMethod<T>, DiReftMethod<T>, NoReftMethod<T>,
                                         ConsReftMethod<T>, LobiReftMethod<T>, ShadowMethod<T>>;

}  // namespace graft::inline v0_1
