#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

#include "graft/base/order.hpp"
#include "graft/base/rng.hpp"
#include "graft/config.hpp"
#include "graft/tensor/tensor.hpp"

namespace graft::inline v0_1 {

/// Result of k-means: the cluster of every row, and the sum of squared distances to the centres.
struct Clusters {
  std::vector<Index> of_row;
  double inertia = 0;
};

namespace detail {

/// Lloyd's iterations from given centres over centred rows, as scikit-learn runs them: until no row
/// changes, the centres move by no more than the tolerance, or `iterations` are done. A cluster
/// that loses all rows takes the row that is farthest from its centre.
GRAFT_KERNEL Clusters lloyd(const std::vector<double>& x, Index rows, Index cols,
                            std::vector<double> centres, Index iterations, double tolerance);

/// Rows minus their mean, and the tolerance that scikit-learn derives from their variance.
template <std::floating_point T>
std::pair<std::vector<double>, double> centred_rows(const BasicTensor<T>& rows) {
  const Index n = rows.rows(), cols = rows.cols();
  std::vector<double> x(rows.begin(), rows.end());
  double variance = 0;
  for (Index j = 0; j < cols; ++j) {
    double mean = 0;
    for (Index i = 0; i < n; ++i) mean += x[static_cast<std::size_t>(i * cols + j)];
    mean /= static_cast<double>(n);
    for (Index i = 0; i < n; ++i) {
      double& v = x[static_cast<std::size_t>(i * cols + j)];
      v -= mean;
      variance += v * v;
    }
  }
  return {std::move(x), 1e-4 * variance / static_cast<double>(n * cols)};
}

/// numpy's RandomState(seed).random_sample: 53 bits of two draws.
GRAFT_KERNEL double random_sample(TorchGenerator& generator);

/// numpy's RandomState.choice(n, count, replace=False, p=uniform).
GRAFT_KERNEL std::vector<Index> distinct_rows(TorchGenerator& generator, Index n, Index count);

}  // namespace detail

/// k-means over rows from k random rows, one start: the result of scikit-learn's KMeans with
/// init="random", n_init=1 and random_state=seed, up to rounding. k is at most the number of rows.
/// @throws ValueError for no rows or no clusters.
template <std::floating_point T>
Clusters kmeans_random(const BasicTensor<T>& rows, Index k, Index iterations, std::uint64_t seed) {
  const Index n = rows.rows(), cols = rows.cols();
  if (n < 1 || k < 1) throw ValueError(concat("kmeans: ", k, " clusters of ", n, " rows"));
  TorchGenerator generator(seed);
  const auto [x, tolerance] = detail::centred_rows(rows);
  std::vector<double> centres;
  for (Index i : detail::distinct_rows(generator, n, std::min(k, n)))
    centres.insert(centres.end(), x.begin() + i * cols, x.begin() + (i + 1) * cols);
  return detail::lloyd(x, n, cols, std::move(centres), iterations, tolerance);
}

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/adapters/low_rank/impl/kmeans_impl.hpp"
#endif
