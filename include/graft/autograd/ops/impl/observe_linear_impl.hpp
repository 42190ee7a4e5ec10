#pragma once

#include <utility>

#include "graft/autograd/ops/observe_linear.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicVar<T> observe_linear(const BasicVar<T>& y, const BasicVar<T>& x, LinearObserver<T> observer) {
  return y.tape().record(
      y.value(), true,
      [gy = y.grad_ref(), kept = x.saved(),
       observer = std::move(observer)](const BasicTensor<T>& dy) {
        const auto& in = kept.get();
        observer(in.reshape({in.rows(), in.cols()}), dy.reshape({dy.rows(), dy.cols()}));
        gy.add(dy);
      });
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T) \
  template BasicVar<T> observe_linear(const BasicVar<T>&, const BasicVar<T>&, LinearObserver<T>);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1
