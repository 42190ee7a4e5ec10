#pragma once

#include <utility>

#include "graft/autograd/ops/edit_rows.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicVar<T> replace_rows(const BasicVar<T>& x, std::vector<Index> index, const BasicVar<T>& rows) {
  auto& tape = detail::common_tape("replace_rows", x, rows);
  if (x.shape().rank() < 1) throw ShapeError("replace_rows: a scalar has no rows");
  const Index count = x.shape()[0], n = count == 0 ? 0 : x.size() / count;
  if (std::ssize(index) * n != rows.size())
    throw ShapeError(concat("replace_rows: ", index.size(), " rows of ", x.shape().text(),
                            " by values ", rows.shape().text()));
  std::vector<bool> seen(static_cast<std::size_t>(count), false);
  auto y = x.value().clone();
  for (std::size_t i = 0; i < index.size(); ++i) {
    const Index row = index[i];
    if (row < 0 || row >= count || seen[static_cast<std::size_t>(row)])
      throw ValueError(concat("replace_rows: row ", row, " of ", count, ", each at most once"));
    seen[static_cast<std::size_t>(row)] = true;
    std::copy_n(rows.value().data() + static_cast<Index>(i) * n, n, y.data() + row * n);
  }
  return tape.record(std::move(y), x.requires_grad() || rows.requires_grad(),
                     [gx = x.grad_ref(), gr = rows.grad_ref(), n,
                      index = std::move(index)](const BasicTensor<T>& dy) {
                       if (gr) {
                         auto dr = BasicTensor<T>::empty(gr.shape());
                         for (std::size_t i = 0; i < index.size(); ++i)
                           std::copy_n(dy.data() + index[i] * n, n,
                                       dr.data() + static_cast<Index>(i) * n);
                         gr.add(dr);
                       }
                       if (gx) {
                         auto dx = dy.clone();
                         for (const Index row : index) std::fill_n(dx.data() + row * n, n, T{0});
                         gx.add(dx);
                       }
                     });
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T) \
  template BasicVar<T> replace_rows(const BasicVar<T>&, std::vector<Index>, const BasicVar<T>&);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1
