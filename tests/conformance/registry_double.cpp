#include "graft/compose/methods.hpp"
#include "registry.hpp"

namespace conformance {

template <>
const graft::MethodRegistry<double>& methods<double>() {
  return graft::all_methods<double>();
}

}  // namespace conformance
