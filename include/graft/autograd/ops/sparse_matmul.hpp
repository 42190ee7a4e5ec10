#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "graft/autograd/ops/common.hpp"

namespace graft {

/// Where the elements of a sparse matrix [rows, cols] are; a place that occurs twice counts twice.
struct SparsePattern {
  Index rows = 0, cols = 0;
  std::vector<std::int32_t> row, col;

  Index size() const { return static_cast<Index>(row.size()); }
};

namespace detail {

/// x: [rows, cols] with the axes swapped.
template <class T>
BasicTensor<T> swapped(const BasicTensor<T>& x) {
  const Index rows = x.rows(), cols = x.cols();
  auto y = BasicTensor<T>::empty({cols, rows});
  constexpr Index kTile = 16;
  for (Index i = 0; i < rows; i += kTile)
    for (Index j = 0; j < cols; j += kTile)
      for (Index k = i; k < std::min(rows, i + kTile); ++k)
        for (Index l = j; l < std::min(cols, j + kTile); ++l) y[l * rows + k] = x[k * cols + l];
  return y;
}

/// result[to_i, :] += values_i · source[from_i, :] over the elements i in order, threads taking
/// columns. The result has `rows` rows.
template <class T>
BasicTensor<T> scatter_products(const BasicTensor<T>& source, const BasicTensor<T>& values,
                                const std::vector<std::int32_t>& from,
                                const std::vector<std::int32_t>& to, Index rows) {
  const Index width = source.cols();
  auto result = BasicTensor<T>::zeros({rows, width});
  constexpr Index kSlice = 64;
  ThreadPool::global().parallel_for((width + kSlice - 1) / kSlice, [&](Index k) {
    const Index first = k * kSlice, count = std::min(kSlice, width - first);
    for (Index i = 0; i < values.size(); ++i) {
      const auto at = static_cast<std::size_t>(i);
      kernels::axpy(values[i], source.data() + from[at] * width + first,
                    result.data() + to[at] * width + first, count);
    }
  });
  return result;
}

}  // namespace detail

/// x Sᵀ for a sparse S with trained elements: y[…, row_i] += values_i · x[…, col_i]. Costs two
/// operations an element and row of x; S is never written out. x: [..., cols], values: one an
/// element of the pattern, result [..., rows]. Keeps x.
/// @throws ShapeError if the sizes do not fit. Places are not checked.
template <std::floating_point T>
BasicVar<T> sparse_matmul(const BasicVar<T>& x, const BasicVar<T>& values,
                          std::shared_ptr<const SparsePattern> pattern) {
  auto& tape = detail::common_tape("sparse_matmul", x, values);
  if (x.cols() != pattern->cols || values.size() != pattern->size())
    throw ShapeError(concat("sparse_matmul: ", x.shape().text(), " times [", pattern->rows, ", ",
                            pattern->cols, "]ᵀ of ", pattern->size(), " elements, ",
                            values.shape().text(), " values"));
  const auto v = values.value();
  const auto y = detail::swapped(detail::scatter_products(
      detail::swapped(x.value()), v, pattern->col, pattern->row, pattern->rows));
  return tape.record(
      y.reshape(x.shape().with_last(pattern->rows)), x.requires_grad() || values.requires_grad(),
      [=, gx = x.grad_ref(), gv = values.grad_ref(),
       kept = values.requires_grad() ? x.saved() : BasicSaved<T>{}](const BasicTensor<T>& dy) {
        const auto dyt = detail::swapped(dy);
        if (gx)
          gx.add(detail::swapped(
                     detail::scatter_products(dyt, v, pattern->row, pattern->col, pattern->cols))
                     .reshape(gx.shape()));
        if (!gv) return;
        const auto xt = detail::swapped(kept.get());
        const Index rows = xt.cols();
        auto dv = BasicTensor<T>::empty(gv.shape());
        detail::parallel_chunks(dv.size(), [&](Index first, Index last) {
          for (Index i = first; i < last; ++i) {
            const auto at = static_cast<std::size_t>(i);
            dv[i] = kernels::dot(dyt.data() + pattern->row[at] * rows,
                                 xt.data() + pattern->col[at] * rows, rows);
          }
        });
        gv.add(dv);
      });
}

}  // namespace graft
