#pragma once

#include <cmath>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "graft/adapters/adapter.hpp"
#include "graft/adapters/initial_values.hpp"

namespace graft::inline v0_1::detail {

/// Core tensor as files hold it: [rank, rank, kh, kw], of a one-dimensional convolution [rank,
/// rank, k, 1].
inline Shape core_shape(Index rank, const ConvGeometry& conv) {
  Shape shape = conv.weight_shape(rank, rank);
  if (conv.kernel.size() == 1) shape.append(1);
  return shape;
}

/// kaiming_uniform_(a = √5) of a tensor whose fan-in is dim 1 times its kernel; not drawn while
/// loading.
template <std::floating_point T>
BasicParameter<T> drawn_factor(InitContext<T>& context, const Shape& shape, Index fan_in) {
  return BasicParameter<T>(kaiming_uniform_tensor<T>(context, shape, fan_in));
}

/// Σ_{p,q} t[p, q, k] b[q, i] a[p, o] as a matrix [o, i · kernel]. t: [r, r, kernel], a: [r, out],
/// b: [r, in].
template <std::floating_point T>
BasicVar<T> core_product(const BasicVar<T>& t, const BasicVar<T>& a, const BasicVar<T>& b) {
  const Index r = t.dim(0), kernel = t.dim(2), out = a.dim(1), in = b.dim(1);
  const auto by_input = matmul(permute(t, {0, 2, 1}), b);                     // [p, k, i]
  const auto rows = reshape(permute(by_input, {0, 2, 1}), {r, in * kernel});  // [p, i k]
  return reshape(matmul(a, rows, Transpose::yes), {out, in * kernel});
}

/// x ΔWᵀ for a layer of `groups` groups, ΔW: [out, in / groups], x: [..., in].
template <std::floating_point T>
BasicVar<T> grouped_affine(const BasicVar<T>& x, const BasicVar<T>& delta, Index groups) {
  if (groups == 1) return affine(x, delta);
  const Index in = delta.dim(1), out = delta.dim(0) / groups;
  std::vector<BasicVar<T>> parts;
  for (Index g = 0; g < groups; ++g)
    parts.push_back(affine(slice(x, -1, g * in, in), slice(delta, 0, g * out, out)));
  return concat_along(x.shape().rank() - 1, parts);
}

/// Zeroes rows of ΔW with probability p while training, and divides by the share that stays if
/// `rescale`.
template <std::floating_point T>
BasicVar<T> drop_rows(const BasicVar<T>& delta, double p, bool rescale) {
  if (p == 0 || !delta.tape().training()) return delta;
  auto& tape = delta.tape();
  TorchGenerator rng(tape.next_random_key());
  auto mask = BasicTensor<T>::empty({delta.dim(0), 1});
  T kept = 0;
  for (T& m : mask) kept += m = rng.uniform() > p ? T{1} : T{0};
  if (rescale && kept > 0)
    for (T& m : mask) m *= static_cast<T>(mask.size()) / kept;
  return mul(delta, tape.constant(mask));
}

/// Whether a whole branch is left out in this pass, with probability p while training.
template <std::floating_point T>
bool drop_module(BasicTape<T>& tape, double p) {
  return p > 0 && tape.training() && TorchGenerator(tape.next_random_key()).uniform() < p;
}

/// x (A ⊗ B)ᵀ without the product: a: [a1, a2], b: [b1, b2], x: [..., a2 b2], result [..., a1 b1].
/// The cheaper factor acts first.
template <std::floating_point T>
BasicVar<T> kronecker_product(const BasicVar<T>& x, const BasicVar<T>& a, const BasicVar<T>& b) {
  const Index m = x.rows(), a1 = a.rows(), a2 = a.cols(), b1 = b.rows(), b2 = b.cols();
  if (x.cols() != a2 * b2)
    throw ShapeError(concat("Kronecker product: input ", x.shape().text(), " for factors ",
                            a.shape().text(), " and ", b.shape().text()));
  const auto times = [](const BasicVar<T>& v, const BasicVar<T>& w) {
    return matmul(v, w, Transpose::no, Transpose::yes);
  };
  const Shape shape = x.shape().with_last(a1 * b1);
  if (a2 * b1 <= a1 * b2) {
    auto h = reshape(times(reshape(x, {m * a2, b2}), b), {m, a2, b1});
    h = reshape(times(permute(h, {0, 2, 1}), a), {m, b1, a1});
    return reshape(permute(h, {0, 2, 1}), shape);
  }
  auto h = permute(reshape(x, {m, a2, b2}), {0, 2, 1});
  h = permute(reshape(times(h, a), {m, b2, a1}), {0, 2, 1});
  return reshape(times(h, b), shape);
}

/// x H with H = Σ_i A_i ⊗ B_i, without H: a: [n, n, n], b: [n, in/n, out/n].
template <std::floating_point T>
BasicVar<T> hypercomplex_product(const BasicVar<T>& x, const BasicVar<T>& a, const BasicVar<T>& b) {
  const Index m = x.rows(), n = a.dim(0), in = b.dim(1), out = b.dim(2);
  // X'[m, q, i, k] = Σ_p A[i, p, q] X[m, p, k], then the sum over i and k.
  const auto rows = reshape(permute(reshape(x, {m, n, in}), {0, 2, 1}), {m * in, n});
  const auto rule = reshape(permute(a, {1, 0, 2}), {n, n * n});
  auto h = reshape(matmul(rows, rule), {m, in, n, n});
  h = reshape(permute(h, {0, 3, 2, 1}), {m * n, n * in});
  return reshape(matmul(h, reshape(b, {n * in, out})), x.shape().with_last(n * out));
}

/// The same with B_i = S_i T_i of rank k, in O(in n k) for a row: s: [n, in/n, k], t: [n, k,
/// out/n].
template <std::floating_point T>
BasicVar<T> hypercomplex_product(const BasicVar<T>& x, const BasicVar<T>& a, const BasicVar<T>& s,
                                 const BasicVar<T>& t) {
  const Index m = x.rows(), n = a.dim(0), in = s.dim(1), k = s.dim(2), out = t.dim(2);
  auto h = matmul(reshape(x, {m * n, in}), reshape(permute(s, {1, 0, 2}), {in, n * k}));
  h = reshape(permute(reshape(h, {m, n, n, k}), {2, 0, 3, 1}), {n, m * k, n});
  h = reshape(matmul(h, a), {n, m, k, n});
  h = reshape(permute(h, {1, 3, 0, 2}), {m * n, n * k});
  return reshape(matmul(h, reshape(t, {n * k, out})), x.shape().with_last(n * out));
}

/// xavier_uniform_ with gain √2 of each [rows, columns] matrix of a stack.
template <std::floating_point T>
BasicParameter<T> glorot_stack(InitContext<T>& context, const Shape& shape) {
  auto t = BasicTensor<T>::zeros(shape);
  if (!context.loading) {
    const double bound = std::sqrt(12.0 / static_cast<double>(shape[1] + shape[2]));
    context.generator.uniform(t.data(), t.size(), -bound, bound);
  }
  return BasicParameter<T>(std::move(t));
}
template <std::floating_point T>
BasicTensor<T> normal_values(InitContext<T>& context, const Shape& shape, double std) {
  auto t = BasicTensor<T>::zeros(shape);
  if (!context.loading) context.generator.normal(t.data(), t.size(), 0, std);
  return t;
}

/// @throws ValueError where `part` does not divide `whole`.
inline void require_division(std::string_view method, const char* what, Index part, Index whole,
                             const std::string& path) {
  if (part < 1 || whole % part != 0)
    throw ValueError(
        concat(method, ": ", what, " ", part, " does not divide ", whole, " at ", path));
}

}  // namespace graft::inline v0_1::detail
