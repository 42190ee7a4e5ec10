#pragma once

#include <limits>
#include <numeric>

#include "graft/adapters/low_rank/kmeans.hpp"

namespace graft::inline v0_1::detail {

GRAFT_KERNEL Clusters lloyd(const std::vector<double>& x, Index rows, Index cols,
                            std::vector<double> centres, Index iterations, double tolerance) {
  const Index k = static_cast<Index>(centres.size()) / cols;
  const auto at = [cols](auto& v, Index i) { return v.data() + i * cols; };
  std::vector<Index> label(static_cast<std::size_t>(rows), -1), before = label;
  std::vector<double> distance(static_cast<std::size_t>(rows));
  const auto assign = [&] {
    double total = 0;
    for (Index i = 0; i < rows; ++i) {
      double best = std::numeric_limits<double>::infinity();
      for (Index c = 0; c < k; ++c) {
        double d = 0;
        for (Index j = 0; j < cols; ++j) {
          const double e = at(x, i)[j] - at(centres, c)[j];
          d += e * e;
        }
        if (d < best) {
          best = d;
          label[static_cast<std::size_t>(i)] = c;
        }
      }
      distance[static_cast<std::size_t>(i)] = best;
      total += best;
    }
    return total;
  };
  bool strict = false;
  for (Index step = 0; step < iterations; ++step) {
    assign();
    std::vector<double> next(centres.size(), 0.0), weight(static_cast<std::size_t>(k), 0.0);
    auto owner = label;
    for (Index i = 0; i < rows; ++i)
      weight[static_cast<std::size_t>(owner[static_cast<std::size_t>(i)])] += 1;
    const std::vector<Index> order = largest_first(distance);
    std::size_t taken = 0;
    for (Index c = 0; c < k; ++c) {
      if (weight[static_cast<std::size_t>(c)] > 0) continue;
      const Index row = order[taken++];
      weight[static_cast<std::size_t>(owner[static_cast<std::size_t>(row)])] -= 1;
      owner[static_cast<std::size_t>(row)] = c;
      weight[static_cast<std::size_t>(c)] = 1;
    }
    for (Index i = 0; i < rows; ++i)
      for (Index j = 0; j < cols; ++j)
        at(next, owner[static_cast<std::size_t>(i)])[j] += at(x, i)[j];
    double shift = 0;
    for (Index c = 0; c < k; ++c)
      for (Index j = 0; j < cols; ++j) {
        double& v = at(next, c)[j];
        v = weight[static_cast<std::size_t>(c)] > 0 ? v / weight[static_cast<std::size_t>(c)]
                                                    : at(centres, c)[j];
        const double e = v - at(centres, c)[j];
        shift += e * e;
      }
    centres = std::move(next);
    if (label == before) {
      strict = true;
      break;
    }
    if (shift <= tolerance) break;
    before = label;
  }
  Clusters result;
  if (!strict) {
    result.inertia = assign();
  } else {
    const auto kept = label;
    assign();
    label = kept;
    for (Index i = 0; i < rows; ++i)
      for (Index j = 0; j < cols; ++j) {
        const double e = at(x, i)[j] - at(centres, label[static_cast<std::size_t>(i)])[j];
        result.inertia += e * e;
      }
  }
  result.of_row = std::move(label);
  return result;
}

GRAFT_KERNEL double random_sample(TorchGenerator& generator) {
  const double high = static_cast<double>(generator.random32() >> 5);
  const double low = static_cast<double>(generator.random32() >> 6);
  return (high * 67108864.0 + low) / 9007199254740992.0;
}

GRAFT_KERNEL std::vector<Index> distinct_rows(TorchGenerator& generator, Index n, Index count) {
  std::vector<Index> found;
  std::vector<double> p(static_cast<std::size_t>(n), 1.0 / static_cast<double>(n));
  while (static_cast<Index>(found.size()) < count) {
    std::vector<double> draws(static_cast<std::size_t>(count) - found.size());
    for (double& d : draws) d = random_sample(generator);
    for (Index i : found) p[static_cast<std::size_t>(i)] = 0;
    std::vector<double> sums(p.size());
    std::partial_sum(p.begin(), p.end(), sums.begin());
    for (double& s : sums) s /= sums.back();
    std::vector<Index> fresh;
    for (double d : draws) {
      const Index i = std::upper_bound(sums.begin(), sums.end(), d) - sums.begin();
      if (std::find(fresh.begin(), fresh.end(), i) == fresh.end()) fresh.push_back(i);
    }
    found.insert(found.end(), fresh.begin(), fresh.end());
  }
  return found;
}

}  // namespace graft::inline v0_1::detail
