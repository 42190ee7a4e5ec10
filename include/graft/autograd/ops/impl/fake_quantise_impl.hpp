#pragma once

#include "graft/autograd/ops/fake_quantise.hpp"

namespace graft::inline v0_1::detail {

template <std::floating_point T>
BasicVar<T> in_groups(const BasicVar<T>& w, const Shape& parameters) {
  const Index out = w.shape().rank() == 2 ? w.dim(0) : -1;
  const Index groups = parameters.rank() == 1 ? 1 : parameters.rank() == 2 ? parameters[1] : 0;
  const bool whole = parameters.rank() == 1 && parameters[0] == 1;
  if (out < 0 || groups < 1 || (parameters[0] != out && !whole) || w.dim(1) % groups != 0)
    throw ShapeError(concat("fake quantiser: parameters ", parameters.text(), " for a weight ",
                            w.shape().text()));
  return reshape(w, {out, groups, w.dim(1) / groups});
}

}  // namespace graft::inline v0_1::detail

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicVar<T> lsq_quantise(const BasicVar<T>& w, const BasicVar<T>& scale, const BasicVar<T>& offset,
                         std::type_identity_t<T> low, std::type_identity_t<T> high) {
  auto v = detail::in_groups(w, scale.shape());
  const auto s = detail::one_a_group(scale);
  BasicVar<T> beta;
  if (offset) {
    beta = detail::one_a_group(offset);
    v = sub(v, beta);
  }
  auto q = mul(straight_through_round(clamp(div(v, s), low, high)), s);
  if (beta) q = add(q, beta);
  return reshape(q, w.shape());
}

template <std::floating_point T>
BasicVar<T> scaled_integers(const BasicVar<T>& u, const BasicVar<T>& scale,
                            std::type_identity_t<T> low, std::type_identity_t<T> high) {
  const auto v = detail::in_groups(u, scale.shape());
  return reshape(mul(clamp(straight_through_round(v), low, high), detail::one_a_group(scale)),
                 u.shape());
}

template <std::floating_point T>
BasicVar<T> affine_quantise(const BasicVar<T>& w, const BasicVar<T>& scale, const BasicVar<T>& zero,
                            std::type_identity_t<T> high) {
  const auto grouped = detail::in_groups(w, scale.shape());
  const auto s =
      detail::one_a_group(straight_through_clamp(scale, static_cast<T>(1e-4), static_cast<T>(1e4)));
  const auto z =
      detail::one_a_group(straight_through_round(straight_through_clamp(zero, T{0}, high)));
  const auto code = clamp(add(straight_through_round(div(grouped, s)), z), T{0}, high);
  return reshape(mul(sub(code, z), s), w.shape());
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T)                                                                       \
  template BasicVar<T> detail::in_groups(const BasicVar<T>&, const Shape&);                        \
  template BasicVar<T> lsq_quantise(const BasicVar<T>&, const BasicVar<T>&, const BasicVar<T>&, T, \
                                    T);                                                            \
  template BasicVar<T> scaled_integers(const BasicVar<T>&, const BasicVar<T>&, T, T);              \
  template BasicVar<T> affine_quantise(const BasicVar<T>&, const BasicVar<T>&, const BasicVar<T>&, \
                                       T);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1
