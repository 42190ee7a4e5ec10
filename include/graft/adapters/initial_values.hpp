#pragma once

#include <cmath>

#include "graft/adapters/adapter.hpp"

/// Random tensors and small products that methods make their first values from.
namespace graft::inline v0_1 {

namespace detail {

template <class T>
BasicTensor<T> kaiming_uniform_tensor(TorchGenerator& generator, const Shape& shape, Index fan_in,
                                      double slope = std::sqrt(5.0));
/// The same from the generator of `context`; zeros, and nothing drawn, while loading.
template <class T>
BasicTensor<T> kaiming_uniform_tensor(InitContext<T>& context, const Shape& shape, Index fan_in,
                                      double slope = std::sqrt(5.0));
template <class T>
BasicTensor<T> normal_tensor(TorchGenerator& generator, const Shape& shape, double std,
                             double mean = 0);
template <class T>
BasicTensor<T> product(const BasicTensor<T>& a, const BasicTensor<T>& b, T alpha = 1,
                       bool ta = false, bool tb = false);

}  // namespace detail

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/adapters/impl/initial_values_impl.hpp"
#endif
