#pragma once

#include <algorithm>
#include <cstddef>
#include <numeric>
#include <span>
#include <vector>

#include "graft/base/types.hpp"

namespace graft::inline v0_1 {

namespace detail {

inline std::vector<Index> order_of(std::span<const double> keys, double sign) {
  std::vector<Index> order(keys.size());
  std::iota(order.begin(), order.end(), Index{0});
  std::stable_sort(order.begin(), order.end(), [keys, sign](Index a, Index b) {
    return sign * keys[static_cast<std::size_t>(a)] < sign * keys[static_cast<std::size_t>(b)];
  });
  return order;
}

}  // namespace detail

/// Numbers of the keys, that of the smallest key first; equal keys stay in their order.
inline std::vector<Index> smallest_first(std::span<const double> keys) {
  return detail::order_of(keys, 1);
}

/// Numbers of the keys, that of the largest key first; equal keys stay in their order.
inline std::vector<Index> largest_first(std::span<const double> keys) {
  return detail::order_of(keys, -1);
}

}  // namespace graft::inline v0_1
