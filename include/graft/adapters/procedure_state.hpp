#pragma once

#include <map>
#include <string>
#include <vector>

#include "graft/tensor/tensor.hpp"

/// What procedures keep in checkpoints; see Procedure::state.
namespace graft::inline v0_1::detail {

using ProcedureState = std::map<std::string, std::vector<double>>;

/// Nothing is kept of an empty tensor.
template <std::floating_point T>
void keep_values(ProcedureState& state, const std::string& name, const BasicTensor<T>& values) {
  if (values) state[name].assign(values.begin(), values.end());
}
/// The values of this name; empty if there are none.
/// @throws ValueError if their number is not that of the shape
template <std::floating_point T>
BasicTensor<T> kept_values(const ProcedureState& state, const std::string& name,
                           const Shape& shape) {
  const auto it = state.find(name);
  if (it == state.end()) return {};
  if (static_cast<Index>(it->second.size()) != shape.elements())
    throw ValueError(concat("state of a procedure: ", it->second.size(), " values of ", name,
                            ", expected ", shape.text()));
  return BasicTensor<T>::from(it->second, shape);
}
/// One number of this name; `standard` if there is none.
inline double kept_number(const ProcedureState& state, const std::string& name, double standard) {
  const auto it = state.find(name);
  return it == state.end() || it->second.empty() ? standard : it->second[0];
}

}  // namespace graft::inline v0_1::detail
