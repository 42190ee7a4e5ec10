#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "graft/autograd/ops/common.hpp"
#include "graft/autograd/ops/shape.hpp"
#include "graft/kernels/sparse.hpp"

namespace graft::inline v0_1 {

/// Where the elements of a sparse matrix [rows, cols] are; a place that occurs twice counts twice.
/// Filled once, not changed after its first use.
struct SparsePattern {
  Index rows = 0, cols = 0;
  std::vector<std::int32_t> row, col;

  Index size() const { return static_cast<Index>(row.size()); }
  /// The elements row by row, and column by column; each in order.
  kernels::SparseGroups by_row() const {
    std::call_once(by_row_.once, [&] { by_row_.fill(row, col, rows, cols); });
    return by_row_.view();
  }
  kernels::SparseGroups by_col() const {
    std::call_once(by_col_.once, [&] { by_col_.fill(col, row, cols, rows); });
    return by_col_.view();
  }

 private:
  struct Order {
    std::once_flag once;
    Index others = 0;
    std::vector<std::int32_t> start, element, other;

    void fill(const std::vector<std::int32_t>& of, const std::vector<std::int32_t>& with,
              Index groups, Index other_groups) {
      others = other_groups;
      start.assign(static_cast<std::size_t>(groups) + 1, 0);
      for (const std::int32_t g : of) ++start[static_cast<std::size_t>(g) + 1];
      for (std::size_t g = 1; g < start.size(); ++g) start[g] += start[g - 1];
      element.resize(of.size());
      other.resize(of.size());
      auto next = start;
      for (std::size_t e = 0; e < of.size(); ++e) {
        const auto at = static_cast<std::size_t>(next[static_cast<std::size_t>(of[e])]++);
        element[at] = static_cast<std::int32_t>(e);
        other[at] = with[e];
      }
    }
    kernels::SparseGroups view() const {
      return {static_cast<Index>(start.size()) - 1, others, start.data(), element.data(),
              other.data()};
    }
  };
  mutable Order by_row_, by_col_;
};

namespace detail {

/// Rows [groups, n] of a sparse product with x: [.., n].
template <class T>
BasicTensor<T> sparse_product(const kernels::SparseGroups& groups, const BasicTensor<T>& values,
                              const BasicTensor<T>& x, kernels::SparseLayout layout) {
  const Index n = x.cols();
  auto y = BasicTensor<T>::empty({groups.groups, n});
  kernels::sparse_rows(groups, values.data(), x.data(), n, layout, y.data());
  return y;
}

/// The rows of x as panels of the kernels, features first.
template <class T>
BasicTensor<T> sparse_panels(const BasicTensor<T>& x) {
  auto panels = BasicTensor<T>::empty({x.cols(), x.rows()});
  kernels::to_sparse_panels(x.data(), x.rows(), x.cols(), panels.data());
  return panels;
}

/// x Sᵀ, added to `base` if there is one.
template <class T>
BasicVar<T> sparse_matmul(const BasicVar<T>* base, const BasicVar<T>& x, const BasicVar<T>& values,
                          std::shared_ptr<const SparsePattern> pattern) {
  auto& tape = detail::common_tape("sparse_matmul", x, values);
  if (base) detail::common_tape("sparse_matmul", x, *base);
  const auto shape = x.shape().with_last(pattern->rows);
  if (x.cols() != pattern->cols || values.size() != pattern->size() ||
      (base && base->shape() != shape))
    throw ShapeError(concat("sparse_matmul: ", x.shape().text(), " times [", pattern->rows, ", ",
                            pattern->cols, "]ᵀ of ", pattern->size(), " elements, ",
                            values.shape().text(), " values",
                            base ? ", added to " + base->shape().text() : std::string()));
  const auto layout = kernels::SparseLayout::panels;
  const auto v = values.value();
  const auto panels = sparse_panels(x.value());
  auto y = base ? base->value().clone() : BasicTensor<T>::empty(shape);
  kernels::from_sparse_panels(sparse_product(pattern->by_row(), v, panels, layout).data(), y.rows(),
                              y.cols(), base != nullptr, y.data());
  BasicGradRef<T> gb;
  if (base) gb = base->grad_ref();
  return tape.record(
      std::move(y), x.requires_grad() || values.requires_grad() || (base && base->requires_grad()),
      [=, gx = x.grad_ref(), gv = values.grad_ref(),
       kept = values.requires_grad() ? x.saved() : BasicSaved<T>{}](const BasicTensor<T>& dy) {
        if (gb) gb.add(dy);
        if (!gx && !gv) return;
        const auto dyt = sparse_panels(dy);
        if (gx) {
          const auto dxt = sparse_product(pattern->by_col(), v, dyt, layout);
          auto dx = BasicTensor<T>::empty(gx.shape());
          kernels::from_sparse_panels(dxt.data(), dx.rows(), dx.cols(), false, dx.data());
          gx.add(dx);
        }
        if (!gv) return;
        auto dv = BasicTensor<T>::empty(gv.shape());
        kernels::sparse_dots(pattern->by_row(), dyt.data(), sparse_panels(kept.get()).data(),
                             dy.rows(), layout, dv.data());
        gv.add(dv);
      });
}

}  // namespace detail

/// x Sᵀ for a sparse S with trained elements: y[…, row_i] += values_i · x[…, col_i]. Costs two
/// operations an element and row of x; S is never written out. x: [..., cols], values: one an
/// element of the pattern, result [..., rows]. Keeps x.
/// @throws ShapeError if the sizes do not fit. Places are not checked.
template <std::floating_point T>
BasicVar<T> sparse_matmul(const BasicVar<T>& x, const BasicVar<T>& values,
                          std::shared_ptr<const SparsePattern> pattern) {
  return detail::sparse_matmul<T>(nullptr, x, values, std::move(pattern));
}

/// base + x Sᵀ, as `sparse_matmul` in one pass over the result.
/// @throws ShapeError if the sizes do not fit. Places are not checked.
template <std::floating_point T>
BasicVar<T> add_sparse_matmul(const BasicVar<T>& base, const BasicVar<T>& x,
                              const BasicVar<T>& values,
                              std::shared_ptr<const SparsePattern> pattern) {
  return detail::sparse_matmul<T>(&base, x, values, std::move(pattern));
}

/// S x for a sparse S and vectors that are the columns of x: [cols, n] to [rows, n]. As
/// `sparse_matmul`, between operations that work feature by feature. Keeps x.
/// @throws ShapeError if the sizes do not fit. Places are not checked.
template <std::floating_point T>
BasicVar<T> sparse_columns(const BasicVar<T>& x, const BasicVar<T>& values,
                           std::shared_ptr<const SparsePattern> pattern) {
  auto& tape = detail::common_tape("sparse_columns", x, values);
  if (x.shape().rank() != 2 || x.dim(0) != pattern->cols || values.size() != pattern->size())
    throw ShapeError(concat("sparse_columns: [", pattern->rows, ", ", pattern->cols, "] of ",
                            pattern->size(), " elements, ", values.shape().text(),
                            " values, times ", x.shape().text()));
  const auto v = values.value();
  const auto layout = kernels::SparseLayout::columns;
  return tape.record(
      detail::sparse_product(pattern->by_row(), v, x.value(), layout),
      x.requires_grad() || values.requires_grad(),
      [=, gx = x.grad_ref(), gv = values.grad_ref(),
       kept = values.requires_grad() ? x.saved() : BasicSaved<T>{}](const BasicTensor<T>& dy) {
        if (gx) gx.add(detail::sparse_product(pattern->by_col(), v, dy, layout));
        if (!gv) return;
        auto dv = BasicTensor<T>::empty(gv.shape());
        kernels::sparse_dots(pattern->by_row(), dy.data(), kept.get().data(), dy.cols(), layout,
                             dv.data());
        gv.add(dv);
      });
}

}  // namespace graft::inline v0_1
