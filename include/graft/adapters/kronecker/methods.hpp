#pragma once

#include "graft/adapters/kronecker/loha.hpp"
#include "graft/adapters/kronecker/lokr.hpp"
#include "graft/adapters/method.hpp"

namespace graft {

/// Methods of the Kronecker and Hadamard family.
template <std::floating_point T>
using KroneckerMethods = MethodList<LinearMethod<BasicLoHa<T>>, LinearMethod<BasicLoKr<T>>>;

}  // namespace graft
