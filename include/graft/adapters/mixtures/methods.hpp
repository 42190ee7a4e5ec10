#pragma once

#include "graft/adapters/method.hpp"
#include "graft/adapters/mixtures/mixlora.hpp"
#include "graft/adapters/mixtures/moelora.hpp"
#include "graft/adapters/mixtures/mola.hpp"
#include "graft/adapters/mixtures/molora.hpp"
#include "graft/adapters/mixtures/mov.hpp"
#include "graft/adapters/mixtures/perft.hpp"
#include "graft/adapters/mixtures/poly.hpp"
#include "graft/adapters/mixtures/sira.hpp"
#include "graft/adapters/mixtures/smore.hpp"
#include "graft/adapters/mixtures/xlora.hpp"

namespace graft::inline v0_1 {

/// Methods of the mixtures family.
template <std::floating_point T>
using MixturesMethods =
    MethodList<LinearMethod<BasicPoly<T>>, XLoRAMethod<T>, LinearMethod<BasicMoLA<T>>,
               LinearMethod<BasicSiRA<T>>, MixLoRAMethod<T>, LinearMethod<BasicMoELoRA<T>>,
               MoVMethod<T>, LinearMethod<BasicMoLoRA<T>>, PerftMethod<T>,
               LinearMethod<BasicSMoRE<T>>>;

}  // namespace graft::inline v0_1
