#pragma once

#include "graft/adapters/method.hpp"
#include "graft/adapters/sparse/delora.hpp"
#include "graft/adapters/sparse/fourierft.hpp"
#include "graft/adapters/sparse/miss.hpp"

namespace graft {

/// Methods of the sparse and shared-structure family.
template <std::floating_point T>
using SparseMethods = MethodList<LinearMethod<BasicMiSS<T>>, LinearMethod<BasicDeLoRA<T>>,
                                 LinearMethod<BasicFourierFT<T>>>;

}  // namespace graft
