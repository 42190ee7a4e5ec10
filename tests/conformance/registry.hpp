#pragma once

#include "graft/compose/adapter_model.hpp"

/// The registry of methods, instantiated in one translation unit of the program.
namespace conformance {

const graft::MethodRegistry<float>& methods();

}  // namespace conformance
