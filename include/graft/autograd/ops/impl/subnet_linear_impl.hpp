#pragma once

#include <utility>

#include "graft/autograd/ops/subnet_linear.hpp"

namespace graft::inline v0_1::detail {

template <class T>
BasicTensor<T> columns_of(const BasicTensor<T>& x, const std::vector<std::int32_t>& columns) {
  const Index rows = x.rows(), width = x.cols(), count = static_cast<Index>(columns.size());
  auto y = BasicTensor<T>::empty({rows, count});
  for (Index i = 0; i < rows; ++i)
    for (Index j = 0; j < count; ++j)
      y[i * count + j] = x[i * width + columns[static_cast<std::size_t>(j)]];
  return y;
}

/// to[:, columns] += y.
template <class T>
void add_columns(const BasicTensor<T>& y, const std::vector<std::int32_t>& columns, T* to,
                 Index width) {
  const Index rows = y.rows(), count = y.cols();
  for (Index i = 0; i < rows; ++i)
    for (Index j = 0; j < count; ++j)
      to[i * width + columns[static_cast<std::size_t>(j)]] += y[i * count + j];
}

}  // namespace graft::inline v0_1::detail

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicVar<T> subnet_linear(const BasicVar<T>& x, const BasicVar<T>& block,
                          std::shared_ptr<const SubnetPlaces> places, Index out) {
  auto& tape = detail::common_tape("subnet_linear", x, block);
  const Index count = static_cast<Index>(places->rows.size()),
              width = static_cast<Index>(places->columns.size());
  if (block.shape() != Shape{count, width})
    throw ShapeError(concat("subnet_linear: block ", block.shape().text(), " for ", count,
                            " rows and ", width, " columns"));
  const Index rows = x.rows();
  const auto narrow = detail::columns_of(x.value(), places->columns);
  auto image = BasicTensor<T>::empty({rows, count});
  const auto b = block.value();
  kernels::gemm(false, true, rows, count, width, T{1}, narrow.data(), width, b.data(), width, T{0},
                image.data(), count);
  auto y = BasicTensor<T>::zeros(x.shape().with_last(out));
  detail::add_columns(image, places->rows, y.data(), out);
  return tape.record(
      std::move(y), x.requires_grad() || block.requires_grad(),
      [=, gx = x.grad_ref(), gb = block.grad_ref(), in = x.cols(),
       narrow = block.requires_grad() ? narrow : BasicTensor<T>{}](const BasicTensor<T>& dy) {
        const auto d = detail::columns_of(dy, places->rows);
        if (gb) {
          auto [db, accumulate] = gb.buffer();
          kernels::gemm(true, false, count, width, rows, T{1}, d.data(), count, narrow.data(),
                        width, accumulate ? T{1} : T{0}, db, width);
        }
        if (!gx) return;
        auto dx = BasicTensor<T>::empty({rows, width});
        kernels::gemm(false, false, rows, width, count, T{1}, d.data(), count, b.data(), width,
                      T{0}, dx.data(), width);
        detail::add_columns(dx, places->columns, gx.accumulator(), in);
      });
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T)                                                    \
  template BasicTensor<T> detail::columns_of(const BasicTensor<T>&,             \
                                             const std::vector<std::int32_t>&); \
  template BasicVar<T> subnet_linear(const BasicVar<T>&, const BasicVar<T>&,    \
                                     std::shared_ptr<const SubnetPlaces>, Index);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1
