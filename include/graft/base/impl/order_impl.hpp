#pragma once

#include <algorithm>
#include <numeric>

#include "graft/base/order.hpp"

namespace graft::inline v0_1::detail {

inline std::vector<Index> order_of(std::span<const double> keys, double sign) {
  std::vector<Index> order(keys.size());
  std::iota(order.begin(), order.end(), Index{0});
  std::stable_sort(order.begin(), order.end(), [keys, sign](Index a, Index b) {
    return sign * keys[static_cast<std::size_t>(a)] < sign * keys[static_cast<std::size_t>(b)];
  });
  return order;
}

}  // namespace graft::inline v0_1::detail

namespace graft::inline v0_1 {

GRAFT_KERNEL std::vector<Index> smallest_first(std::span<const double> keys) {
  return detail::order_of(keys, 1);
}

GRAFT_KERNEL std::vector<Index> largest_first(std::span<const double> keys) {
  return detail::order_of(keys, -1);
}

}  // namespace graft::inline v0_1
