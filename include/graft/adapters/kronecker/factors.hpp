#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "graft/adapters/adapter.hpp"
#include "graft/adapters/initial_values.hpp"

namespace graft::detail {

inline Index kernel_elements(const ConvGeometry& conv) {
  Index size = 1;
  for (Index k : conv.kernel) size *= k;
  return size;
}

/// Kernel as files hold the core tensors: [kh, kw], of a one-dimensional convolution [k, 1].
inline void append_kernel(Shape& shape, const ConvGeometry& conv) {
  for (Index k : conv.kernel) shape.append(k);
  if (conv.kernel.size() == 1) shape.append(1);
}

/// kaiming_uniform_(a = √5) of a tensor whose fan-in is dim 1 times its kernel; not drawn while
/// loading.
template <std::floating_point T>
BasicParameter<T> drawn_factor(InitContext<T>& context, const Shape& shape, Index fan_in) {
  if (context.loading) return BasicParameter<T>(BasicTensor<T>::zeros(shape));
  return BasicParameter<T>(kaiming_uniform_tensor<T>(context.generator, shape, fan_in));
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

}  // namespace graft::detail
