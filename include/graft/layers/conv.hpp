#pragma once

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "graft/autograd/ops/shape.hpp"
#include "graft/autograd/ops/unfold.hpp"
#include "graft/layers/sites/linear_site.hpp"

namespace graft::inline v0_1 {

/// A convolution through a linear site over patches: x [batch, channels, spatial…] -> [batch, out,
/// positions…].
template <std::floating_point T>
BasicVar<T> convolution(const BasicLinearSite<T>& site, const BasicVar<T>& x,
                        const ConvOptions& options) {
  std::vector<Index> positions;
  const auto rows = site(unfold(x, options, &positions));
  const Index batch = x.dim(0), out = site.out_features();
  const Index places =
      std::accumulate(positions.begin(), positions.end(), Index{1}, std::multiplies<>());
  Shape shape{batch, out};
  for (Index p : positions) shape.append(p);
  return reshape(transpose(reshape(rows, {batch, places, out})), shape);
}

/// The weight of a grouped convolution [out, in / groups, kernel…] as a matrix [out, in · ∏
/// kernel], zero between groups. @throws ShapeError if the groups do not divide out.
template <std::floating_point T>
BasicTensor<T> ungrouped_weight(const BasicTensor<T>& weight, Index groups) {
  if (weight.rank() < 2 || groups < 1 || weight.dim(0) % groups != 0)
    throw ShapeError(
        concat("grouped convolution: weight ", weight.shape().text(), " for ", groups, " groups"));
  const Index out = weight.dim(0), width = weight.size() / out;
  auto full = BasicTensor<T>::zeros({out, width * groups});
  for (Index o = 0; o < out; ++o)
    std::copy_n(weight.data() + o * width, width,
                full.data() + o * width * groups + o / (out / groups) * width);
  return full;
}

/// The inverse of `ungrouped_weight`: the blocks of the groups, [out, in / groups · ∏ kernel].
template <std::floating_point T>
BasicTensor<T> grouped_weight(const BasicTensor<T>& full, Index groups) {
  const Index out = full.rows(), width = full.cols() / groups;
  auto weight = BasicTensor<T>::empty({out, width});
  for (Index o = 0; o < out; ++o)
    std::copy_n(full.data() + o * width * groups + o / (out / groups) * width, width,
                weight.data() + o * width);
  return weight;
}

}  // namespace graft::inline v0_1
