#pragma once

#include <concepts>

#include "graft/compose/adapter_model.hpp"

/// The registry of methods, instantiated in one translation unit of the program for each precision.
namespace conformance {

template <std::floating_point T>
const graft::MethodRegistry<T>& methods();
template <>
const graft::MethodRegistry<float>& methods<float>();
template <>
const graft::MethodRegistry<double>& methods<double>();

}  // namespace conformance
