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
BasicVar<T> in_groups(const BasicVar<T>& w, const Shape& parameters);
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
                         std::type_identity_t<T> low, std::type_identity_t<T> high);

/// The same with the rounding inside of the limits, ŵ = s clamp(round(u), low, high), for weights u
/// in units of s: the mask looks at the rounded value, both limits included.
template <std::floating_point T>
BasicVar<T> scaled_integers(const BasicVar<T>& u, const BasicVar<T>& scale,
                            std::type_identity_t<T> low, std::type_identity_t<T> high);

/// ŵ = s (clamp(round(w / s) + round(z), 0, high) − round(z)) with s limited to [1e-4, 1e4] and z
/// to [0, high]; both limits and both roundings pass the gradient on. With m = 1 where the code is
/// inside, limits included: ∂ŵ/∂w = m, ∂ŵ/∂s = q − z − m w / s, ∂ŵ/∂z = (m − 1) s.
template <std::floating_point T>
BasicVar<T> affine_quantise(const BasicVar<T>& w, const BasicVar<T>& scale, const BasicVar<T>& zero,
                            std::type_identity_t<T> high);

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/autograd/ops/impl/fake_quantise_impl.hpp"
#endif
