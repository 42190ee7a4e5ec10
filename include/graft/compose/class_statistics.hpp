#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

#include "graft/autograd/ops/loss.hpp"
#include "graft/autograd/ops/shape.hpp"
#include "graft/base/rng.hpp"
#include "graft/tensor/decompositions.hpp"

/// What methods share that learn new classes task by task.
namespace graft::inline v0_1 {

/// Cross-entropy over the classes [first, last) alone: the logits of the others are masked, so they
/// get no gradient. labels: in [first, last), or -100. @throws ValueError, ShapeError
template <std::floating_point T>
BasicVar<T> cross_entropy_of_classes(const BasicVar<T>& logits,
                                     std::span<const std::int64_t> labels, Index first,
                                     Index last) {
  std::vector<std::int64_t> own(labels.begin(), labels.end());
  for (auto& label : own) {
    if (label == kIgnoredLabel) continue;
    if (label < first || label >= last)
      throw ValueError(concat("cross_entropy_of_classes: label ", label, ", expected [", first,
                              ", ", last, ")"));
    label -= first;
  }
  return cross_entropy(slice(logits, -1, first, last - first), own);
}

/// Softmax of each row over its first `classes` entries (0: all), [rows, classes].
template <std::floating_point T>
BasicTensor<T> class_probabilities(const BasicTensor<T>& logits, Index classes = 0) {
  const Index all = logits.cols(), count = classes > 0 ? classes : all;
  if (count > all)
    throw ShapeError(concat("class_probabilities: ", count, " classes of ", all, " logits"));
  auto result = BasicTensor<T>::empty({logits.rows(), count});
  for (Index r = 0; r < logits.rows(); ++r) {
    const T* row = logits.data() + r * all;
    const double top = static_cast<double>(*std::max_element(row, row + count));
    double total = 0;
    for (Index c = 0; c < count; ++c) total += std::exp(static_cast<double>(row[c]) - top);
    for (Index c = 0; c < count; ++c)
      result(r, c) = static_cast<T>(std::exp(static_cast<double>(row[c]) - top) / total);
  }
  return result;
}

/// Number of the largest entry of each row, of equal ones the first.
template <std::floating_point T>
std::vector<Index> best_classes(const BasicTensor<T>& scores) {
  std::vector<Index> best;
  for (Index r = 0; r < scores.rows(); ++r) {
    const T* row = scores.data() + r * scores.cols();
    best.push_back(std::max_element(row, row + scores.cols()) - row);
  }
  return best;
}

/// A classifier's weight or bias with room for more classes behind the old ones, whose values stay;
/// new rows of a weight are drawn as torch draws a linear layer, those of a bias are zero.
template <std::floating_point T>
BasicTensor<T> grown_head(const BasicTensor<T>& old, Index classes, TorchGenerator& generator) {
  const Index rows = old.dim(0);
  if (classes < rows)
    throw ShapeError(concat("grown_head: ", classes, " classes, there are ", rows));
  Shape shape = old.shape();
  shape[0] = classes;
  auto grown = BasicTensor<T>::zeros(shape);
  std::copy_n(old.data(), old.size(), grown.data());
  if (old.rank() > 1) {
    const double bound = 1 / std::sqrt(static_cast<double>(old.cols()));
    generator.uniform(grown.data() + old.size(), grown.size() - old.size(), -bound, bound);
  }
  return grown;
}
/// Makes the first rows of a gradient zero: the rows of classes that are not trained any more.
template <std::floating_point T>
void freeze_rows(const BasicParameter<T>& parameter, Index rows) {
  if (!parameter.grad()) return;
  auto g = parameter.grad().clone();
  std::fill_n(g.data(), g.size() / g.dim(0) * std::min(rows, g.dim(0)), T{0});
  parameter.mutable_grad() = std::move(g);
}

/// A class as a Gaussian in the space of features.
template <std::floating_point T>
struct ClassStatistics {
  BasicTensor<T> mean;        ///< [d]
  BasicTensor<T> covariance;  ///< [d, d]
  Index task = 0;             ///< in which the class was learned
};

/// Mean and covariance (over n − 1, plus `ridge` on the diagonal) of the features of one class,
/// [n, d]; a single sample has the ridge alone. @throws ShapeError without samples
template <std::floating_point T>
ClassStatistics<T> class_statistics(const BasicTensor<T>& features, Index task,
                                    double ridge = 1e-4) {
  const Index n = features.rows(), d = features.cols();
  if (n < 1) throw ShapeError("class_statistics: no samples");
  std::vector<double> mean(static_cast<std::size_t>(d), 0),
      square(static_cast<std::size_t>(d * d), 0);
  for (Index i = 0; i < n; ++i)
    for (Index j = 0; j < d; ++j)
      mean[static_cast<std::size_t>(j)] +=
          static_cast<double>(features(i, j)) / static_cast<double>(n);
  const auto centred = [&](Index i, Index j) {
    return static_cast<double>(features(i, j)) - mean[static_cast<std::size_t>(j)];
  };
  for (Index i = 0; i < n; ++i)
    for (Index j = 0; j < d; ++j)
      for (Index k = 0; k < d; ++k)
        square[static_cast<std::size_t>(j * d + k)] +=
            centred(i, j) * centred(i, k) / static_cast<double>(std::max<Index>(1, n - 1));
  for (Index j = 0; j < d; ++j) square[static_cast<std::size_t>(j * (d + 1))] += ridge;
  return {BasicTensor<T>::from(mean, {d}), BasicTensor<T>::from(square, {d, d}), task};
}

/// Samples of N(factor · mean, covariance), [count, d], for training a classifier without data.
template <std::floating_point T>
BasicTensor<T> sample_class(const ClassStatistics<T>& statistics, Index count, double factor,
                            TorchGenerator& generator) {
  const Index d = statistics.mean.size();
  const auto eigen = symmetric_eigen(statistics.covariance);
  auto result = BasicTensor<T>::empty({count, d});
  std::vector<T> z(static_cast<std::size_t>(d));
  for (Index i = 0; i < count; ++i) {
    generator.normal(z.data(), d, 0, 1);
    for (Index j = 0; j < d; ++j) result(i, j) = static_cast<T>(factor) * statistics.mean[j];
    for (Index k = 0; k < d; ++k) {
      const T size = std::sqrt(std::max(T{0}, eigen.values[k])) * z[static_cast<std::size_t>(k)];
      for (Index j = 0; j < d; ++j) result(i, j) += size * eigen.vectors(j, k);
    }
  }
  return result;
}

}  // namespace graft::inline v0_1
