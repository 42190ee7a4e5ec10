#pragma once

#include <array>

#include "graft/autograd/ops/shape.hpp"

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicVar<T> reshape(const BasicVar<T>& x, const Shape& shape) {
  auto result = x.tape().record(x.value().reshape(shape), x.requires_grad(),
                                [gx = x.grad_ref()](const BasicTensor<T>& dy) { gx.add(dy); });
  if (!x.is_recomputable()) return result;
  return x.tape().recomputable(std::move(result),
                               [kept = x.saved(), shape] { return kept.get().reshape(shape); });
}

}  // namespace graft::inline v0_1

namespace graft::inline v0_1::detail {

template <class T>
BasicTensor<T> permuted(const BasicTensor<T>& x, const std::array<int, Shape::kMaxRank>& order) {
  const int rank = x.rank();
  Shape shape;
  std::array<Index, Shape::kMaxRank> in_stride{}, stride{};
  Index step = 1;
  for (int i = rank - 1; i >= 0; --i) {
    in_stride[static_cast<std::size_t>(i)] = step;
    step *= x.shape()[i];
  }
  for (int i = 0; i < rank; ++i) {
    const int from = order[static_cast<std::size_t>(i)];
    shape.append(x.shape()[from]);
    stride[static_cast<std::size_t>(i)] = in_stride[static_cast<std::size_t>(from)];
  }
  BasicTensor<T> y = BasicTensor<T>::empty(shape);
  if (y.size() == 0) return y;
  if (rank == 0) {
    y[0] = x[0];
    return y;
  }
  // The last axis is copied run by run, or with the axis that was the last one as a matrix.
  const auto last = static_cast<std::size_t>(rank - 1);
  const Index inner = shape.cols(), inner_stride = stride[last];
  std::size_t runs = last;
  for (std::size_t i = 0; i < last && inner_stride != 1; ++i)
    if (stride[i] == 1 && (runs == last || shape[static_cast<int>(i)] > 1)) runs = i;
  std::array<Index, Shape::kMaxRank> out_stride{}, at{};
  step = 1;
  for (int i = rank - 1; i >= 0; --i) {
    out_stride[static_cast<std::size_t>(i)] = step;
    step *= shape[i];
  }
  Index count = y.size() / inner, from = 0, to = 0;
  if (runs != last) count /= shape[static_cast<int>(runs)];
  for (; count > 0; --count) {
    if (runs != last) {
      kernels::transpose(x.data() + from, inner, shape[static_cast<int>(runs)], inner_stride,
                         y.data() + to, out_stride[runs]);
    } else {
      for (Index j = 0; j < inner; ++j) y.data()[to + j] = x.data()[from + j * inner_stride];
    }
    for (int axis = rank - 2; axis >= 0; --axis) {
      const auto i = static_cast<std::size_t>(axis);
      if (i == runs) continue;
      from += stride[i];
      to += out_stride[i];
      if (++at[i] < shape[axis]) break;
      from -= stride[i] * shape[axis];
      to -= out_stride[i] * shape[axis];
      at[i] = 0;
    }
  }
  return y;
}

}  // namespace graft::inline v0_1::detail

namespace graft::inline v0_1 {

template <std::floating_point T>
BasicVar<T> permute(const BasicVar<T>& x, std::initializer_list<int> order) {
  if (static_cast<int>(order.size()) != x.shape().rank())
    throw ShapeError(concat("permute: ", order.size(), " axes for shape ", x.shape().text()));
  std::array<int, Shape::kMaxRank> forward{}, inverse{};
  int i = 0;
  for (int from : order) {
    if (from < 0 || from >= x.shape().rank()) throw ShapeError(concat("permute: no axis ", from));
    forward[static_cast<std::size_t>(i)] = from;
    inverse[static_cast<std::size_t>(from)] = i++;
  }
  return x.tape().record(detail::permuted(x.value(), forward), x.requires_grad(),
                         [gx = x.grad_ref(), inverse](const BasicTensor<T>& dy) {
                           gx.add(detail::permuted(dy, inverse));
                         });
}

template <std::floating_point T>
BasicVar<T> transpose(const BasicVar<T>& x) {
  return x.tape().record(transposed(x.value()), x.requires_grad(),
                         [gx = x.grad_ref()](const BasicTensor<T>& dy) { gx.add(transposed(dy)); });
}

template <std::floating_point T>
BasicVar<T> slice(const BasicVar<T>& x, int axis, Index first, Index count) {
  const int a = axis < 0 ? axis + x.shape().rank() : axis;
  const Index size = x.shape().dim(a);
  if (first < 0 || count < 0 || first + count > size)
    throw ShapeError(
        concat("slice: [", first, ", ", first + count, ") of axis ", a, " of ", x.shape().text()));
  Shape shape = x.shape();
  shape[a] = count;
  Index outer = 1, inner = 1;
  for (int i = 0; i < a; ++i) outer *= shape[i];
  for (int i = a + 1; i < shape.rank(); ++i) inner *= shape[i];
  auto y = BasicTensor<T>::empty(shape);
  for (Index o = 0; o < outer; ++o)
    std::copy_n(x.value().data() + (o * size + first) * inner, count * inner,
                y.data() + o * count * inner);
  return x.tape().record(std::move(y), x.requires_grad(),
                         [=, gx = x.grad_ref()](const BasicTensor<T>& dy) {
                           T* dx = gx.accumulator();
                           for (Index o = 0; o < outer; ++o) {
                             T* to = dx + (o * size + first) * inner;
                             kernels::add(to, dy.data() + o * count * inner, to, count * inner);
                           }
                         });
}

template <std::floating_point T>
BasicVar<T> concat_along(int axis, const std::vector<BasicVar<T>>& parts) {
  if (parts.empty()) throw ValueError("concat_along: nothing to join");
  auto& tape = parts[0].tape();
  Shape shape = parts[0].shape();
  const int a = axis < 0 ? axis + shape.rank() : axis;
  Index total = 0;
  bool wanted = false;
  std::vector<Index> sizes;
  std::vector<BasicGradRef<T>> grads;
  for (const auto& p : parts) {
    Shape other = p.shape();
    if (other.rank() == shape.rank()) other[a] = shape[a];
    if (other != shape)
      throw ShapeError(concat("concat_along: shapes ", parts[0].shape().text(), " and ",
                              p.shape().text(), " on axis ", a));
    total += p.shape()[a];
    sizes.push_back(p.shape()[a]);
    grads.push_back(p.grad_ref());
    wanted = wanted || p.requires_grad();
  }
  shape[a] = total;
  Index outer = 1, inner = 1;
  for (int i = 0; i < a; ++i) outer *= shape[i];
  for (int i = a + 1; i < shape.rank(); ++i) inner *= shape[i];
  auto y = BasicTensor<T>::empty(shape);
  Index offset = 0;
  for (const auto& p : parts) {
    const Index n = p.shape()[a] * inner;
    for (Index o = 0; o < outer; ++o)
      std::copy_n(p.value().data() + o * n, n, y.data() + o * total * inner + offset);
    offset += n;
  }
  return tape.record(
      std::move(y), wanted,
      [=, sizes = std::move(sizes), grads = std::move(grads)](const BasicTensor<T>& dy) {
        Index at = 0;
        for (std::size_t p = 0; p < grads.size(); ++p) {
          const Index n = sizes[p] * inner;
          if (grads[p]) {
            auto [data, accumulate] = grads[p].buffer();
            for (Index o = 0; o < outer; ++o) {
              const T* from = dy.data() + o * total * inner + at;
              if (accumulate)
                kernels::add(data + o * n, from, data + o * n, n);
              else
                std::copy_n(from, n, data + o * n);
            }
          }
          at += n;
        }
      });
}

template <std::floating_point T>
BasicVar<T> broadcast_to(const BasicVar<T>& x, const Shape& shape) {
  if (broadcast_shape("broadcast_to", x.shape(), shape) != shape)
    throw ShapeError(concat("broadcast_to: ", x.shape().text(), " to ", shape.text()));
  auto y = BasicTensor<T>::empty(shape);
  detail::for_each_broadcast(shape, x.shape(), [&](Index i, Index j) { y[i] = x.value()[j]; });
  return x.tape().record(
      std::move(y), x.requires_grad(),
      [gx = x.grad_ref()](const BasicTensor<T>& dy) { gx.add(detail::reduce_to(dy, gx.shape())); });
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T)                                                    \
  template BasicVar<T> reshape(const BasicVar<T>&, const Shape&);               \
  template BasicVar<T> permute(const BasicVar<T>&, std::initializer_list<int>); \
  template BasicVar<T> transpose(const BasicVar<T>&);                           \
  template BasicVar<T> slice(const BasicVar<T>&, int, Index, Index);            \
  template BasicVar<T> concat_along(int, const std::vector<BasicVar<T>>&);      \
  template BasicVar<T> broadcast_to(const BasicVar<T>&, const Shape&);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1
