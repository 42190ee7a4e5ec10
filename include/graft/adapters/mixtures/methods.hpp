#pragma once

#include "graft/adapters/method.hpp"
#include "graft/adapters/mixtures/poly.hpp"
#include "graft/adapters/mixtures/xlora.hpp"

namespace graft {

/// Methods of the mixtures family.
template <std::floating_point T>
using MixturesMethods = MethodList<LinearMethod<BasicPoly<T>>, XLoRAMethod<T>>;

}  // namespace graft
