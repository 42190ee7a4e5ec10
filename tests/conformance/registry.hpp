#pragma once

#include "graft/compose/adapter_model.hpp"
#include "graft/compose/methods.hpp"

namespace conformance {

template <std::floating_point T>
const graft::MethodRegistry<T>& methods() {
  return graft::all_methods<T>();
}

}  // namespace conformance
