#pragma once

#include <concepts>

/// Declarations of the types that user interfaces mention, for headers that only pass them on.

namespace graft::inline v0_1 {

class Error;
class ShapeError;
class ValueError;
class IoError;
class TorchGenerator;
class NumpyGenerator;
struct StepReport;
template <std::floating_point T>
class BasicAdapterModel;

}  // namespace graft::inline v0_1
