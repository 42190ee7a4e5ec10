#pragma once

#include <string_view>

#include "graft/autograd/ops/elementwise.hpp"
#include "graft/base/error.hpp"

namespace graft::inline v0_1 {

namespace detail {

/// Activation by the name that the transformers library gives it; false if there is none.
template <std::floating_point T>
bool named_activation(std::string_view name, const BasicVar<T>& x, BasicVar<T>& y);

/// activation by name. @throws ValueError for a name that is not known.
template <std::floating_point T>
BasicVar<T> apply_activation(std::string_view name, const BasicVar<T>& x);

/// @throws ValueError for a name that is not known.
GRAFT_KERNEL void require_activation(std::string_view method, std::string_view name);

inline bool is_identity(std::string_view activation) {
  return activation == "linear" || activation == "identity";
}

}  // namespace detail

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/adapters/impl/named_activation_impl.hpp"
#endif
