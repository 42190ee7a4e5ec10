#pragma once

#include "graft/adapters/method.hpp"
#include "graft/adapters/quantized/efficient_qat.hpp"
#include "graft/adapters/quantized/l4q.hpp"
#include "graft/adapters/quantized/lr_qat.hpp"
#include "graft/adapters/quantized/metis.hpp"
#include "graft/adapters/quantized/sketch_tune.hpp"

namespace graft::inline v0_1 {

/// Methods that train with quantised weights.
template <std::floating_point T>
using QuantizedMethods = MethodList<LinearMethod<BasicL4Q<T>>, LinearMethod<BasicLRQAT<T>>,
                                    LinearMethod<BasicEfficientQAT<T>>,
                                    LinearMethod<BasicSketchTune<T>>, LinearMethod<BasicMetis<T>>>;

}  // namespace graft::inline v0_1
