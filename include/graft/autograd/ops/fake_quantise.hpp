#pragma once

#include "graft/autograd/ops/shape.hpp"
#include "graft/autograd/ops/straight_through.hpp"

/// What a weight is after quantisation to even steps, with gradients for the weight and the
/// quantiser's own parameters. w: [out, in]; scales, offsets and zeros: [out, groups] or [out], a
/// value for in / groups neighbours of a row, or [1], one for the whole weight.
namespace graft::inline v0_1 {

namespace detail {

/// w as [out, groups, in / groups], for parameters of the shape [out, groups], [out] or [1].
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
template <std::floating_point T>
BasicVar<T> one_a_group(const BasicVar<T>& p) {
  return reshape(p, {p.dim(0), p.shape().rank() == 1 ? 1 : p.dim(1), 1});
}

}  // namespace detail

/// LSQ: ŵ = s q (+ β), q = round(clamp(v, low, high)), v = (w − β) / s.
///
/// With m = 1 where low ≤ v ≤ high and 0 elsewhere: ∂ŵ/∂w = m, ∂ŵ/∂s = q − m v, ∂ŵ/∂β = 1 − m. β
/// may be empty. Source: Esser et al. 2020 (arXiv:1902.08153), without its gradient
/// scale 1/√(n high). @throws ShapeError if the shapes do not fit
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

/// The same with the rounding inside of the limits, ŵ = s clamp(round(u), low, high), for weights u
/// in units of s: the mask looks at the rounded value, both limits included.
template <std::floating_point T>
BasicVar<T> scaled_integers(const BasicVar<T>& u, const BasicVar<T>& scale,
                            std::type_identity_t<T> low, std::type_identity_t<T> high) {
  const auto v = detail::in_groups(u, scale.shape());
  return reshape(mul(clamp(straight_through_round(v), low, high), detail::one_a_group(scale)),
                 u.shape());
}

/// ŵ = s (clamp(round(w / s) + round(z), 0, high) − round(z)) with s limited to [1e-4, 1e4] and z
/// to [0, high]; both limits and both roundings pass the gradient on. With m = 1 where the code is
/// inside, limits included: ∂ŵ/∂w = m, ∂ŵ/∂s = q − z − m w / s, ∂ŵ/∂z = (m − 1) s.
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

}  // namespace graft::inline v0_1
