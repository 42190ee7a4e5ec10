#pragma once

#include <type_traits>

#include "graft/base/error.hpp"
#include "graft/base/types.hpp"

namespace graft::inline v0_1 {

/// Non-owning row-major matrix: element (i, j) is data[i * row_stride + j].
/// `MatrixView<const float>` is read-only; a mutable view converts to it.
template <class T>
class MatrixView {
 public:
  MatrixView() = default;
  /// @throws ShapeError if a size is negative or row_stride < cols.
  MatrixView(T* data, Index rows, Index cols, Index row_stride)
      : data_(data), rows_(rows), cols_(cols), row_stride_(row_stride) {
    if (rows < 0 || cols < 0 || (rows > 1 && row_stride < cols))
      throw ShapeError(
          concat("MatrixView: ", rows, " x ", cols, " with row stride ", row_stride,
                 "; expected non-negative sizes and a stride of at least the columns"));
  }
  MatrixView(T* data, Index rows, Index cols) : MatrixView(data, rows, cols, cols) {}

  operator MatrixView<const T>() const
    requires(!std::is_const_v<T>)
  {
    return {data_, rows_, cols_, row_stride_};
  }

  T* data() const { return data_; }
  T* row(Index i) const { return data_ + i * row_stride_; }
  T& operator()(Index i, Index j) const { return data_[i * row_stride_ + j]; }
  Index rows() const { return rows_; }
  Index cols() const { return cols_; }
  Index row_stride() const { return row_stride_; }
  bool contiguous() const { return rows_ <= 1 || row_stride_ == cols_; }
  MatrixView middle_rows(Index first, Index count) const {
    return {data_ + first * row_stride_, count, cols_, row_stride_};
  }

 private:
  T* data_ = nullptr;
  Index rows_ = 0;
  Index cols_ = 0;
  Index row_stride_ = 0;
};

using ConstMatrixView = MatrixView<const float>;

}  // namespace graft::inline v0_1
