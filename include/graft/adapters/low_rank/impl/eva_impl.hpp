#pragma once

#include <algorithm>
#include <cmath>

#include "graft/adapters/low_rank/eva.hpp"

namespace graft::inline v0_1 {

GRAFT_KERNEL std::vector<Index> eva_ranks(const std::vector<std::vector<double>>& shares,
                                          Index budget) {
  std::vector<double> all;
  std::vector<std::size_t> layer_of;
  for (std::size_t layer = 0; layer < shares.size(); ++layer) {
    all.insert(all.end(), shares[layer].begin(), shares[layer].end());
    layer_of.resize(all.size(), layer);
  }
  const auto order = largest_first(all);
  std::vector<Index> ranks(shares.size(), 0);
  for (std::size_t i = 0; i < order.size() && static_cast<Index>(i) < budget; ++i)
    ++ranks[layer_of[static_cast<std::size_t>(order[i])]];
  return ranks;
}

template <std::floating_point T>
bool IncrementalPca<T>::add(const BasicTensor<T>& x) {
  const Index n = x.rows(), in = x.cols();
  if (count_ > in || (!mean_.empty() && static_cast<Index>(mean_.size()) != in))
    throw ShapeError(concat("incremental PCA: ", count_, " components of ", x.shape().text()));
  if (n < count_) return false;
  const bool first = mean_.empty();
  if (first) mean_.assign(static_cast<std::size_t>(in), 0.0);
  std::vector<double> batch_mean(static_cast<std::size_t>(in), 0.0);
  for (Index r = 0; r < n; ++r)
    for (Index i = 0; i < in; ++i)
      batch_mean[static_cast<std::size_t>(i)] += static_cast<double>(x[r * in + i]);
  for (double& m : batch_mean) m /= static_cast<double>(n);
  const double seen = static_cast<double>(seen_), fresh = static_cast<double>(n),
               total = seen + fresh;
  const Index kept = first ? 0 : components_.rows(), rows = kept + n + (first ? 0 : 1);
  auto stacked = BasicTensor<T>::empty({rows, in});
  for (Index k = 0; k < kept; ++k)
    for (Index i = 0; i < in; ++i) stacked(k, i) = values_[k] * components_(k, i);
  for (Index i = 0; i < in; ++i) {
    const double mean = batch_mean[static_cast<std::size_t>(i)];
    for (Index r = 0; r < n; ++r) {
      const double centred = static_cast<double>(x[r * in + i]) - mean;
      spread_ += centred * centred;
      stacked(kept + r, i) = static_cast<T>(centred);
    }
    double& old = mean_[static_cast<std::size_t>(i)];
    spread_ += seen * fresh / total * (old - mean) * (old - mean);
    if (!first)
      stacked(rows - 1, i) = static_cast<T>(std::sqrt(seen / total * fresh) * (old - mean));
    old = (seen * old + fresh * mean) / total;
  }
  seen_ += n;
  const auto d = svd(stacked);
  const Index found = std::min(count_, d.s.size());
  components_ = BasicTensor<T>::empty({found, in});
  values_ = BasicTensor<T>::empty({found});
  explained_.clear();
  for (Index k = 0; k < found; ++k) {
    Index top = 0;
    for (Index i = 1; i < in; ++i)
      if (std::abs(d.v(i, k)) > std::abs(d.v(top, k))) top = i;
    const T sign = d.v(top, k) < 0 ? T{-1} : T{1};
    for (Index i = 0; i < in; ++i) components_(k, i) = sign * d.v(i, k);
    values_[k] = d.s[k];
    const double s = static_cast<double>(d.s[k]);
    explained_.push_back(spread_ > 0 ? s * s / spread_ : 0);
  }
  return true;
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
template class IncrementalPca<float>;
template class IncrementalPca<double>;
#endif

}  // namespace graft::inline v0_1
