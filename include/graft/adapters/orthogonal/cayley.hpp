#pragma once

#include "graft/autograd/ops/matmul.hpp"
#include "graft/autograd/ops/shape.hpp"

namespace graft::inline v0_1::detail {

/// The first terms of (I + Q)(I − Q)⁻¹: I + 2 Q + … + 2 Qⁿ⁻² + Qⁿ⁻¹ for n terms (3 as 4, as PEFT
/// has it). q: [..., b, b].
template <std::floating_point T>
BasicVar<T> cayley_neumann(const BasicVar<T>& q, Index terms) {
  const Index size = q.cols();
  auto one = BasicTensor<T>::identity(size);
  if (q.shape().rank() == 3) one = one.reshape({1, size, size});
  auto sum = broadcast_to(q.tape().constant(one), q.shape());
  if (terms == 1) return sum;
  sum = add(sum, scale(q, T{2}));
  if (terms == 2) return sum;
  auto power = matmul(q, q);
  sum = add(sum, scale(power, T{2}));
  const Index last = terms <= 4 ? 3 : terms - 1;
  for (Index i = 3; i <= last; ++i) {
    power = matmul(power, q);
    sum = add(sum, scale(power, i == last ? T{1} : T{2}));
  }
  return sum;
}

}  // namespace graft::inline v0_1::detail
