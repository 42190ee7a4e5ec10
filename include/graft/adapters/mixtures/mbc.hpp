#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "graft/base/rng.hpp"
#include "graft/tensor/decompositions.hpp"
#include "graft/tensor/tensor.hpp"

/// Model-based clustering (Ostapenko et al. 2024, arXiv:2405.11157, section 3.1): tasks whose
/// separately trained LoRAs are alike share one. Each row of `theta` is the flat LoRA of a task;
/// `best_clusters` of the `sparsified` rows finds the clusters; training one LoRA for each is
/// ordinary training, or starts from `cluster_means`.
namespace graft::inline v0_1::mbc {

/// Entries with |θ| no larger than the q-quantile of their own row (linear interpolation) go to
/// zero. theta: [tasks, P]. @throws ValueError for a q outside of [0, 1]
template <std::floating_point T>
BasicTensor<T> sparsified(const BasicTensor<T>& theta, double q) {
  if (!(q >= 0 && q <= 1)) throw ValueError(concat("MBC: quantile ", q, ", expected [0, 1]"));
  auto result = theta.clone();
  const Index n = theta.cols();
  std::vector<double> sizes(static_cast<std::size_t>(n));
  for (Index t = 0; t < theta.rows(); ++t) {
    for (Index i = 0; i < n; ++i)
      sizes[static_cast<std::size_t>(i)] = std::abs(static_cast<double>(theta(t, i)));
    std::sort(sizes.begin(), sizes.end());
    const double place = q * static_cast<double>(n - 1);
    const auto below = static_cast<std::size_t>(place);
    const double next = sizes[std::min(below + 1, sizes.size() - 1)];
    const double limit =
        sizes[below] + (place - static_cast<double>(below)) * (next - sizes[below]);
    for (Index i = 0; i < n; ++i)
      if (std::abs(static_cast<double>(theta(t, i))) <= limit) result(t, i) = 0;
  }
  return result;
}

/// Cosine similarities of the tasks, [tasks, tasks], from their places along the first `components`
/// singular vectors of theta (not centred): rows of U Σ, of length one.
/// @throws ValueError for less than one component
template <std::floating_point T>
BasicTensor<T> similarities(const BasicTensor<T>& theta, Index components) {
  if (components < 1)
    throw ValueError(concat("MBC: n_components ", components, ", expected at least 1"));
  const auto factors = svd(theta);
  const Index tasks = theta.rows(), k = std::min(components, factors.s.size());
  std::vector<double> rows(static_cast<std::size_t>(tasks * k));
  for (Index t = 0; t < tasks; ++t) {
    double* row = rows.data() + t * k;
    double square = 0;
    for (Index c = 0; c < k; ++c) {
      row[c] = static_cast<double>(factors.u(t, c)) * static_cast<double>(factors.s[c]);
      square += row[c] * row[c];
    }
    for (Index c = 0; c < k && square > 0; ++c) row[c] /= std::sqrt(square);
  }
  auto result = BasicTensor<T>::empty({tasks, tasks});
  for (Index a = 0; a < tasks; ++a)
    for (Index b = 0; b < tasks; ++b) {
      double dot = 0;
      for (Index c = 0; c < k; ++c)
        dot +=
            rows[static_cast<std::size_t>(a * k + c)] * rows[static_cast<std::size_t>(b * k + c)];
      result(a, b) = static_cast<T>(dot);
    }
  return result;
}

/// Lloyd's iterations over the rows of x from some of them as centres until no row changes its
/// cluster; the cluster of each row. A cluster without rows keeps its centre.
/// @throws ValueError for no centre or one that is no row
template <std::floating_point T>
std::vector<Index> clusters(const BasicTensor<T>& x, const std::vector<Index>& initial) {
  const Index rows = x.rows(), cols = x.cols(), k = std::ssize(initial);
  if (k < 1) throw ValueError("MBC: no initial centres");
  std::vector<double> centres;
  for (const Index row : initial) {
    if (row < 0 || row >= rows)
      throw ValueError(concat("MBC: centre ", row, " of ", rows, " rows"));
    for (Index j = 0; j < cols; ++j) centres.push_back(static_cast<double>(x(row, j)));
  }
  std::vector<Index> label(static_cast<std::size_t>(rows), -1);
  for (bool changed = true; changed;) {
    changed = false;
    for (Index i = 0; i < rows; ++i) {
      double best = std::numeric_limits<double>::infinity();
      Index nearest = 0;
      for (Index c = 0; c < k; ++c) {
        double distance = 0;
        for (Index j = 0; j < cols; ++j) {
          const double e =
              static_cast<double>(x(i, j)) - centres[static_cast<std::size_t>(c * cols + j)];
          distance += e * e;
        }
        if (distance < best) {
          best = distance;
          nearest = c;
        }
      }
      auto& own = label[static_cast<std::size_t>(i)];
      changed = changed || own != nearest;
      own = nearest;
    }
    std::vector<double> sums(centres.size(), 0.0), counts(static_cast<std::size_t>(k), 0.0);
    for (Index i = 0; i < rows; ++i) {
      const Index c = label[static_cast<std::size_t>(i)];
      counts[static_cast<std::size_t>(c)] += 1;
      for (Index j = 0; j < cols; ++j)
        sums[static_cast<std::size_t>(c * cols + j)] += static_cast<double>(x(i, j));
    }
    for (Index c = 0; c < k; ++c)
      for (Index j = 0; j < cols && counts[static_cast<std::size_t>(c)] > 0; ++j)
        centres[static_cast<std::size_t>(c * cols + j)] =
            sums[static_cast<std::size_t>(c * cols + j)] / counts[static_cast<std::size_t>(c)];
  }
  return label;
}

/// The mean of the rows of each cluster, [clusters, P]; zero for one without rows. With one cluster
/// of all rows: the uniform mean µ.
template <std::floating_point T>
BasicTensor<T> cluster_means(const BasicTensor<T>& theta, const std::vector<Index>& label,
                             Index count) {
  if (std::ssize(label) != theta.rows())
    throw ShapeError(concat("MBC: ", label.size(), " labels of ", theta.rows(), " rows"));
  auto means = BasicTensor<T>::zeros({count, theta.cols()});
  for (Index c = 0; c < count; ++c) {
    const auto size = static_cast<double>(std::count(label.begin(), label.end(), c));
    for (Index i = 0; i < theta.cols() && size > 0; ++i) {
      double total = 0;
      for (Index t = 0; t < theta.rows(); ++t)
        if (label[static_cast<std::size_t>(t)] == c) total += static_cast<double>(theta(t, i));
      means(c, i) = static_cast<T>(total / size);
    }
  }
  return means;
}

/// At most k clusters of the rows of x: of `restarts` runs the one with the smallest sum of squared
/// distances of rows to the mean of their cluster. A run starts with k-means++: a random row, then
/// rows drawn with their squared distance to the nearest centre so far; fewer than k where no row
/// is away from all of them. Arthur and Vassilvitskii 2007. @throws ValueError for counts below one
/// and values that are not finite
template <std::floating_point T>
std::vector<Index> best_clusters(const BasicTensor<T>& x, Index k, TorchGenerator& generator,
                                 Index restarts = 10) {
  const Index rows = x.rows(), cols = x.cols();
  if (k < 1 || restarts < 1 || rows < 1)
    throw ValueError(concat("MBC: ", k, " clusters of ", rows, " rows, ", restarts,
                            " restarts, expected at least 1"));
  if (!std::all_of(x.begin(), x.end(), [](T v) { return std::isfinite(v); }))
    throw ValueError("MBC: rows with values that are not finite");
  const auto squared = [&](const BasicTensor<T>& other, Index j, Index i) {
    double sum = 0;
    for (Index c = 0; c < cols; ++c) {
      const double e = static_cast<double>(x(i, c)) - static_cast<double>(other(j, c));
      sum += e * e;
    }
    return sum;
  };
  std::vector<Index> best;
  double least = std::numeric_limits<double>::infinity();
  for (Index run = 0; run < restarts; ++run) {
    std::vector<Index> centres{generator.below(rows)};
    std::vector<double> away(static_cast<std::size_t>(rows),
                             std::numeric_limits<double>::infinity());
    while (std::ssize(centres) < k) {
      double total = 0;
      for (Index i = 0; i < rows; ++i) {
        double& d = away[static_cast<std::size_t>(i)];
        d = std::min(d, squared(x, centres.back(), i));
        total += d;
      }
      if (!(total > 0)) break;
      double left = generator.uniform() * total;
      Index next = -1;
      for (Index i = 0; i < rows && (next < 0 || left >= 0); ++i) {
        const double d = away[static_cast<std::size_t>(i)];
        if (!(d > 0)) continue;
        next = i;
        left -= d;
      }
      centres.push_back(next);
    }
    auto label = clusters(x, centres);
    const auto means = cluster_means(x, label, std::ssize(centres));
    double inertia = 0;
    for (Index i = 0; i < rows; ++i)
      inertia += squared(means, label[static_cast<std::size_t>(i)], i);
    if (inertia < least) {
      least = inertia;
      best = std::move(label);
    }
  }
  return best;
}

}  // namespace graft::inline v0_1::mbc
