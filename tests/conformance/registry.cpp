#include "registry.hpp"

#include "graft/compose/methods.hpp"

namespace conformance {

template <>
const graft::MethodRegistry<float>& methods<float>() {
  return graft::all_methods<float>();
}

}  // namespace conformance
