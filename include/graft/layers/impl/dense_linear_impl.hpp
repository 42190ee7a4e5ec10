#pragma once

#include "graft/layers/dense_linear.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicDenseLinear<T>::BasicDenseLinear(BasicTensor<T> weight, BasicTensor<T> bias)
    : keep_(weight), view_(weight.matrix()), bias_(std::move(bias)) {
  if (weight.rank() != 2)
    throw ShapeError(concat("DenseLinear: weight ", weight.shape().text(), ", expected [out, in]"));
  check_bias();
}

template <std::floating_point T>
BasicTensor<T> BasicDenseLinear<T>::dense_weight() const {
  if (keep_) return keep_;
  if (view_.contiguous())
    return BasicTensor<T>::borrow(const_cast<T*>(view_.data()), {view_.rows(), view_.cols()});
  auto w = BasicTensor<T>::empty({view_.rows(), view_.cols()});
  write_weight(0, w.matrix());
  return w;
}

template <std::floating_point T>
void BasicDenseLinear<T>::forward(MatrixView<const T> x, MatrixView<T> y,
                                  const LowRankProduct<T>* term) const {
  if constexpr (std::is_same_v<T, float>) {
    const auto low = detail::kernel_term(term);
    kernels::frozen_forward(frozen(), x.data(), x.rows(), x.row_stride(), bias_.data(), y.data(),
                            y.row_stride(), false, term ? &low : nullptr, compute_);
  } else {
    kernels::gemm(false, true, x.rows(), out_features(), in_features(), T{1}, x.data(),
                  x.row_stride(), view_.data(), view_.row_stride(), T{0}, y.data(), y.row_stride());
    if (bias_)
      for (Index i = 0; i < y.rows(); ++i)
        for (Index j = 0; j < y.cols(); ++j) y(i, j) += bias_[j];
    detail::add_low_rank(term, y);
  }
}

template <std::floating_point T>
void BasicDenseLinear<T>::backward_input(MatrixView<const T> dy, MatrixView<T> dx,
                                         const LowRankProduct<T>* term, bool accumulate) const {
  if constexpr (std::is_same_v<T, float>) {
    const auto low = detail::kernel_term(term);
    kernels::frozen_backward_input(frozen(), dy.data(), dy.rows(), dy.row_stride(), dx.data(),
                                   dx.row_stride(), accumulate, term ? &low : nullptr, compute_);
  } else {
    kernels::gemm(false, false, dy.rows(), in_features(), out_features(), T{1}, dy.data(),
                  dy.row_stride(), view_.data(), view_.row_stride(), accumulate ? T{1} : T{0},
                  dx.data(), dx.row_stride());
    detail::add_low_rank(term, dx);
  }
}

template <std::floating_point T>
BasicDenseLinear<T> BasicDenseLinear<T>::with_compute(kernels::Compute compute) const
  requires std::is_same_v<T, float>
{
  BasicDenseLinear layer = *this;
  layer.compute_ = compute;
  layer.packed_ = nullptr;
  return layer;
}

template <std::floating_point T>
kernels::FrozenWeight BasicDenseLinear<T>::frozen() const
  requires std::is_same_v<T, float>
{
  kernels::FrozenWeight w;
  w.out = out_features();
  w.in = in_features();
  w.dense = view_.data();
  w.row_stride = view_.row_stride();
  w.packed = packed_.get();
  return w;
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
template class BasicDenseLinear<float>;
template class BasicDenseLinear<double>;
#endif

}  // namespace graft::inline v0_1
