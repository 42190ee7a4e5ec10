#pragma once

#include "graft/optim/ferret.hpp"

namespace graft::inline v0_1 {

GRAFT_KERNEL std::vector<std::vector<Index>> ferret_groups(std::span<const Index> sizes,
                                                           double share) {
  if (sizes.empty()) return {};
  std::vector<Index> sorted(sizes.begin(), sizes.end());
  std::sort(sorted.begin(), sorted.end());
  const std::size_t half = sorted.size() / 2;
  const double median = sorted.size() % 2 == 1
                            ? static_cast<double>(sorted[half])
                            : static_cast<double>(sorted[half - 1] + sorted[half]) / 2;
  std::vector<std::vector<Index>> groups;
  double size = 0;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    const auto own = static_cast<double>(sizes[i]);
    if (groups.empty() || size + own > share * median) {
      groups.emplace_back();
      size = 0;
    }
    groups.back().push_back(static_cast<Index>(i));
    size += own;
  }
  return groups;
}

GRAFT_KERNEL std::vector<Index> ferret_seed_counts(std::span<const double> norms, Index num_seeds) {
  double largest = 0;
  for (const double n : norms) largest = std::max(largest, n);
  std::vector<Index> counts;
  for (const double n : norms) {
    const double count = largest > 0 ? n / largest * static_cast<double>(num_seeds) : 0;
    counts.push_back(std::min(num_seeds, std::max<Index>(2, static_cast<Index>(count))));
  }
  return counts;
}

}  // namespace graft::inline v0_1
