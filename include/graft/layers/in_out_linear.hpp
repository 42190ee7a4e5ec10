#pragma once

#include "graft/kernels/gemm.hpp"
#include "graft/layers/linear.hpp"

namespace graft::inline v0_1 {

/// y = x V + b with a dense frozen weight that is stored the other way round than DenseLinear's.
///
/// weight V: [in_features, out_features] row-major: a column-major matrix of out × in, the kernel
/// of a Keras layer, Conv1D of GPT-2; bias: [out_features] or empty. Borrows the weight, with any
/// row stride; that memory must outlive the layer. Products read V where it is: nothing is copied,
/// and nothing can be packed, so DenseLinear with `pack()` is the faster of the two.
template <std::floating_point T>
class BasicInOutLinear {
 public:
  using Scalar = T;

  /// @throws ShapeError if the bias does not have out_features elements.
  explicit BasicInOutLinear(MatrixView<const T> weight, BasicTensor<T> bias = {});

  Index in_features() const { return view_.rows(); }
  Index out_features() const { return view_.cols(); }
  /// V, [in, out].
  MatrixView<const T> weight() const { return view_; }
  const BasicTensor<T>& bias() const { return bias_; }
  /// Rows [first, first + rows.rows()) of Vᵀ.
  void write_weight(Index first, MatrixView<T> rows) const {
    for (Index o = 0; o < rows.rows(); ++o)
      for (Index i = 0; i < rows.cols(); ++i) rows(o, i) = view_(i, first + o);
  }
  void forward(MatrixView<const T> x, MatrixView<T> y) const;
  void backward_input(MatrixView<const T> dy, MatrixView<T> dx) const {
    kernels::gemm(false, true, dy.rows(), in_features(), out_features(), T{1}, dy.data(),
                  dy.row_stride(), view_.data(), view_.row_stride(), T{1}, dx.data(),
                  dx.row_stride());
  }

 private:
  MatrixView<const T> view_;
  BasicTensor<T> bias_;
};

using InOutLinear = BasicInOutLinear<float>;

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/layers/impl/in_out_linear_impl.hpp"
#endif
