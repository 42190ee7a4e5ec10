#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "graft/base/types.hpp"
#include "graft/config.hpp"

namespace graft::inline v0_1 {

/// Numbers of the keys, that of the smallest key first; equal keys stay in their order.
GRAFT_KERNEL std::vector<Index> smallest_first(std::span<const double> keys);

/// Numbers of the keys, that of the largest key first; equal keys stay in their order.
GRAFT_KERNEL std::vector<Index> largest_first(std::span<const double> keys);

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/base/impl/order_impl.hpp"
#endif
