#pragma once

#include "graft/compose/method_registry.hpp"

#ifndef GRAFT_METHODS_COMPILED
#include "graft/adapters/bottleneck/methods.hpp"
#include "graft/adapters/elementwise/methods.hpp"
#include "graft/adapters/kronecker/methods.hpp"
#include "graft/adapters/low_rank/methods.hpp"
#include "graft/adapters/memory/methods.hpp"
#include "graft/adapters/mixtures/methods.hpp"
#include "graft/adapters/orthogonal/methods.hpp"
#include "graft/adapters/prompts/methods.hpp"
#include "graft/adapters/quantized/methods.hpp"
#include "graft/adapters/representation/methods.hpp"
#include "graft/adapters/selection/methods.hpp"
#include "graft/adapters/sparse/methods.hpp"
#include "graft/adapters/spectral/methods.hpp"
#include "graft/compose/full_method.hpp"
#endif

namespace graft::inline v0_1 {

#ifdef GRAFT_METHODS_COMPILED

/// Every method of the library. GRAFT_METHODS_COMPILED: defined in a library, one unit a family;
/// BasicAdapterModel and the models are there too.
template <std::floating_point T>
const MethodRegistry<T>& all_methods();
template <>
const MethodRegistry<float>& all_methods<float>();
template <>
const MethodRegistry<double>& all_methods<double>();

#else

/// Every method of the library.
template <std::floating_point T>
const MethodRegistry<T>& all_methods() {
  static const MethodRegistry<T> registry = [] {
    MethodRegistry<T> r;
    r.add(BottleneckMethods<T>{});
    r.add(ElementwiseMethods<T>{});
    r.add(KroneckerMethods<T>{});
    r.add(LowRankMethods<T>{});
    r.add(MemoryMethods<T>{});
    r.add(MixturesMethods<T>{});
    r.add(OrthogonalMethods<T>{});
    r.add(PromptMethods<T>{});
    r.add(QuantizedMethods<T>{});
    r.add(RepresentationMethods<T>{});
    r.add(SelectionMethods<T>{});
    r.add(SparseMethods<T>{});
    r.add(SpectralMethods<T>{});
    r.add(FullMethods<T>{});
    return r;
  }();
  return registry;
}

#endif

}  // namespace graft::inline v0_1
