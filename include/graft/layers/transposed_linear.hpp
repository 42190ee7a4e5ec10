#pragma once

#include <utility>

#include "graft/layers/linear.hpp"

namespace graft::inline v0_1 {

/// x W, the product with a base's frozen weight the other way round: [..., out] -> [..., in],
/// through the base's own kernels, so that a quantised weight is never whole. The layer must
/// outlive the backward pass. @throws ShapeError if x does not have out_features columns.
template <Linear L>
BasicVar<ScalarOf<L>> transposed_linear(const L& base, const BasicVar<ScalarOf<L>>& x) {
  using T = ScalarOf<L>;
  const Index in = base.in_features(), out = base.out_features();
  if (x.shape().rank() < 1 || x.cols() != out)
    throw ShapeError(
        concat("transposed_linear: input ", x.shape().text(), ", expected [..., ", out, "]"));
  if constexpr (TapeLinear<L>) {
    return matmul(x, x.tape().constant(weight_of(base)));
  } else {
    auto y = BasicTensor<T>::zeros(x.shape().with_last(in));
    base.backward_input(x.value().matrix(), y.matrix());
    return x.tape().record(
        std::move(y), x.requires_grad(), [&base, out, gx = x.grad_ref()](const BasicTensor<T>& dy) {
          auto dx = BasicTensor<T>::empty(dy.shape().with_last(out));
          base.forward(dy.matrix(), dx.matrix());
          if (const auto bias = bias_of(base))
            for (Index i = 0; i < dx.rows(); ++i)
              kernels::sub(dx.data() + i * out, bias.data(), dx.data() + i * out, out);
          gx.add(dx.reshape(gx.shape()));
        });
  }
}

}  // namespace graft::inline v0_1
