#pragma once

#include "graft/layers/linear.hpp"

namespace graft::inline v0_1::detail {

/// The frozen layer at the bottom of a chain of adapters, as far as the base tells.
template <Linear L>
const auto& root_of(const L& base) {
  if constexpr (requires { base.root(); })
    return base.root();
  else
    return base;
}

/// True if the base says that other adapters run between it and the frozen layer.
template <Linear L>
bool has_adapters_below(const L& base) {
  if constexpr (requires { base.has_adapters_below(); })
    return base.has_adapters_below();
  else
    return false;
}

}  // namespace graft::inline v0_1::detail
