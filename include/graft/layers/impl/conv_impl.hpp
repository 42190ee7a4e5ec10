#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include "graft/layers/conv.hpp"

namespace graft::inline v0_1 {

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

template <std::floating_point T>
BasicTensor<T> grouped_weight(const BasicTensor<T>& full, Index groups) {
  const Index out = full.rows(), width = full.cols() / groups;
  auto weight = BasicTensor<T>::empty({out, width});
  for (Index o = 0; o < out; ++o)
    std::copy_n(full.data() + o * width * groups + o / (out / groups) * width, width,
                weight.data() + o * width);
  return weight;
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T)                                                      \
  template BasicVar<T> convolution(const BasicLinearSite<T>&, const BasicVar<T>&, \
                                   const ConvOptions&);                           \
  template BasicTensor<T> ungrouped_weight(const BasicTensor<T>&, Index);         \
  template BasicTensor<T> grouped_weight(const BasicTensor<T>&, Index);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1
