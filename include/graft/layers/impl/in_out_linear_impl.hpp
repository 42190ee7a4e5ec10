#pragma once

#include <algorithm>
#include <functional>
#include <utility>

#include "graft/layers/in_out_linear.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicInOutLinear<T>::BasicInOutLinear(MatrixView<const T> weight, BasicTensor<T> bias)
    : view_(weight), bias_(std::move(bias)) {
  if (bias_ && bias_.size() != out_features())
    throw ShapeError(
        concat("InOutLinear: bias ", bias_.shape().text(), ", expected [", out_features(), "]"));
}

template <std::floating_point T>
void BasicInOutLinear<T>::forward(MatrixView<const T> x, MatrixView<T> y) const {
  kernels::gemm(false, false, x.rows(), out_features(), in_features(), T{1}, x.data(),
                x.row_stride(), view_.data(), view_.row_stride(), T{0}, y.data(), y.row_stride());
  if (!bias_) return;
  for (Index i = 0; i < y.rows(); ++i)
    std::transform(y.row(i), y.row(i) + y.cols(), bias_.data(), y.row(i), std::plus<T>());
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
template class BasicInOutLinear<float>;
template class BasicInOutLinear<double>;
#endif

}  // namespace graft::inline v0_1
