#pragma once

#include "graft/adapters/kronecker/compacter.hpp"
#include "graft/adapters/kronecker/kadaptation.hpp"
#include "graft/adapters/kronecker/krona.hpp"
#include "graft/adapters/kronecker/loha.hpp"
#include "graft/adapters/kronecker/lokr.hpp"
#include "graft/adapters/kronecker/loretta.hpp"
#include "graft/adapters/kronecker/moka.hpp"
#include "graft/adapters/kronecker/phm.hpp"
#include "graft/adapters/kronecker/soka.hpp"
#include "graft/adapters/kronecker/surm.hpp"
#include "graft/adapters/method.hpp"

namespace graft::inline v0_1 {

/// Methods of the Kronecker and Hadamard family, hypercomplex layers and tensor trains.
template <std::floating_point T>
using KroneckerMethods =
    MethodList<LinearMethod<BasicLoHa<T>>, LinearMethod<BasicLoKr<T>>, LinearMethod<BasicKronA<T>>,
               LinearMethod<BasicPHM<T, PHMConfig>>, LinearMethod<BasicPHM<T, LPHMConfig>>,
               CompacterMethod<T>, LinearMethod<BasicKAdaptation<T>>, LinearMethod<BasicSoKA<T>>,
               LinearMethod<BasicMoKA<T>>, LoRETTAAdapterMethod<T>, LoRETTALowRankMethod<T>,
               LinearMethod<BasicSURM<T>>>;

}  // namespace graft::inline v0_1
