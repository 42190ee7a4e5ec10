#pragma once

#include <string>

#include "graft/autograd/ops/sparse_matmul.hpp"

namespace graft::inline v0_1::detail {

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

}  // namespace graft::inline v0_1::detail

namespace graft::inline v0_1 {

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

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T)                                                         \
  template BasicVar<T> detail::sparse_matmul(const BasicVar<T>*, const BasicVar<T>&, \
                                             const BasicVar<T>&,                     \
                                             std::shared_ptr<const SparsePattern>);  \
  template BasicVar<T> sparse_columns(const BasicVar<T>&, const BasicVar<T>&,        \
                                      std::shared_ptr<const SparsePattern>);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1
