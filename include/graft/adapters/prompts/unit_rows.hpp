#pragma once

#include <limits>

#include "graft/autograd/ops/elementwise.hpp"
#include "graft/autograd/ops/reduce.hpp"

namespace graft::inline v0_1 {

/// x / max(|x|, 1e-12) along the last axis.
template <std::floating_point T>
BasicVar<T> unit_rows(const BasicVar<T>& x) {
  return div(x, clamp(norm_last(x), static_cast<T>(1e-12), std::numeric_limits<T>::max()));
}

}  // namespace graft::inline v0_1
