#pragma once

#include <algorithm>
#include <array>

#include "graft/base/shape.hpp"
#include "graft/kernels/elementwise.hpp"
#include "graft/tensor/tensor.hpp"

namespace graft::inline v0_1 {

/// Shape of an elementwise operation on two arrays: axes are aligned at the end, an axis of size
/// one (or a missing one) is repeated. @throws ShapeError if sizes differ otherwise.
GRAFT_KERNEL Shape broadcast_shape(const char* operation, const Shape& a, const Shape& b);

namespace detail {

/// Walks the elements of `out` in order and calls f(i, index into an array of shape `in` broadcast
/// to `out`).
template <class F>
void for_each_broadcast(const Shape& out, const Shape& in, F&& f) {
  std::array<Index, Shape::kMaxRank> stride{};
  Index step = 1;
  for (int i = 1; i <= in.rank(); ++i) {
    const Index size = in[in.rank() - i];
    stride[static_cast<std::size_t>(out.rank() - i)] = size == 1 ? 0 : step;
    step *= size;
  }
  const Index inner = out.cols();
  const Index inner_stride = out.rank() == 0 ? 0 : stride[static_cast<std::size_t>(out.rank() - 1)];
  const Index outer = inner == 0 ? 0 : out.elements() / inner;
  std::array<Index, Shape::kMaxRank> at{};
  Index base = 0;
  for (Index o = 0, i = 0; o < outer; ++o) {
    for (Index j = 0; j < inner; ++j, ++i) f(i, base + j * inner_stride);
    for (int axis = out.rank() - 2; axis >= 0; --axis) {
      const auto s = static_cast<std::size_t>(axis);
      base += stride[s];
      if (++at[s] < out[axis]) break;
      base -= stride[s] * out[axis];
      at[s] = 0;
    }
  }
}

/// True if an array of shape `part` stands for every run of its size in one of shape `whole`: its
/// axes are the last ones, those before them missing or of size one.
GRAFT_KERNEL bool repeats(const Shape& whole, const Shape& part);

/// Sum of `g` (of shape out) over the axes along which `shape` was repeated.
template <class T>
BasicTensor<T> reduce_to(const BasicTensor<T>& g, const Shape& shape);

}  // namespace detail
}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/autograd/ops/impl/broadcast_impl.hpp"
#endif
