#pragma once

/// Declarations of the types that user interfaces mention, for headers that only pass them on.

namespace graft {

class Error;
class ShapeError;
class ValueError;
class IoError;
class TorchGenerator;
class NumpyGenerator;

}  // namespace graft
