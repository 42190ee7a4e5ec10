#pragma once

#include "graft/layers/linear.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicVar<T> affine(const BasicVar<T>& x, const BasicVar<T>& weight, const BasicTensor<T>& bias) {
  auto y = matmul(x, weight, Transpose::no, Transpose::yes);
  return bias ? add(y, x.tape().constant(bias)) : y;
}

template <std::floating_point T>
BasicVar<T> affine(const BasicVar<T>& x, const BasicParameter<T>& weight,
                   const BasicParameter<T>& bias) {
  auto& tape = x.tape();
  const auto y = matmul(x, tape.parameter(weight), Transpose::no, Transpose::yes);
  return bias ? add(y, tape.parameter(bias)) : y;
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T)                                                                  \
  template BasicVar<T> affine(const BasicVar<T>&, const BasicVar<T>&, const BasicTensor<T>&); \
  template BasicVar<T> affine(const BasicVar<T>&, const BasicParameter<T>&,                   \
                              const BasicParameter<T>&);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1
