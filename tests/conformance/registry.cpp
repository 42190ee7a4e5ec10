#include "registry.hpp"

#include "graft/compose/methods.hpp"

namespace conformance {

const graft::MethodRegistry<float>& methods() { return graft::all_methods<float>(); }

}  // namespace conformance
