#pragma once

#include <array>
#include <span>
#include <utility>
#include <vector>

#include "graft/autograd/ops/broadcast.hpp"
#include "graft/autograd/ops/common.hpp"
#include "graft/kernels/sparse.hpp"
#include "graft/tensor/transposed.hpp"

namespace graft::inline v0_1 {

/// The same elements under another shape.
template <std::floating_point T>
BasicVar<T> reshape(const BasicVar<T>& x, const Shape& shape) {
  auto result = x.tape().record(x.value().reshape(shape), x.requires_grad(),
                                [gx = x.grad_ref()](const BasicTensor<T>& dy) { gx.add(dy); });
  if (!x.is_recomputable()) return result;
  return x.tape().recomputable(std::move(result),
                               [kept = x.saved(), shape] { return kept.get().reshape(shape); });
}

namespace detail {

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

}  // namespace detail

/// Axis i of the result is axis order[i] of x.
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

/// The last two axes swapped.
template <std::floating_point T>
BasicVar<T> transpose(const BasicVar<T>& x) {
  return x.tape().record(transposed(x.value()), x.requires_grad(),
                         [gx = x.grad_ref()](const BasicTensor<T>& dy) { gx.add(transposed(dy)); });
}

/// Elements [first, first + count) along an axis (negative axes count from the end).
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

/// The arrays one after the other along an axis.
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

/// x repeated to `shape` by the rules of broadcasting.
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

/// Rows of a matrix (all axes after the first form the row) by number: y[i] = x[index[i]].
/// Gradients of repeated rows add; that of row `fixed` is left out.
template <std::floating_point T, class Integer>
BasicVar<T> gather_rows(const BasicVar<T>& x, std::vector<Integer> index, Index fixed = -1) {
  if (x.shape().rank() == 0) throw ShapeError("gather_rows: a scalar has no rows");
  const Index n = x.shape()[0] == 0 ? 0 : x.size() / x.shape()[0];
  for (Integer i : index)
    if (i < 0 || static_cast<Index>(i) >= x.shape()[0])
      throw ValueError(concat("gather_rows: row ", i, " of ", x.shape()[0]));
  Shape shape = x.shape();
  shape[0] = static_cast<Index>(index.size());
  auto y = BasicTensor<T>::empty(shape);
  for (std::size_t i = 0; i < index.size(); ++i)
    std::copy_n(x.value().data() + static_cast<Index>(index[i]) * n, n,
                y.data() + static_cast<Index>(i) * n);
  return x.tape().record(
      std::move(y), x.requires_grad(),
      [gx = x.grad_ref(), n, index = std::move(index), fixed](const BasicTensor<T>& dy) {
        T* dx = gx.accumulator();
        for (std::size_t i = 0; i < index.size(); ++i) {
          if (static_cast<Index>(index[i]) == fixed) continue;
          T* to = dx + static_cast<Index>(index[i]) * n;
          kernels::add(to, dy.data() + static_cast<Index>(i) * n, to, n);
        }
      });
}

/// Elements of a flat array by number: y[i] = x.flat[index[i]], reshaped to `shape`. Gradients of
/// repeated elements add.
template <std::floating_point T, class Integer>
BasicVar<T> take(const BasicVar<T>& x, std::vector<Integer> index, const Shape& shape) {
  return reshape(gather_rows(reshape(x, {x.size(), 1}), std::move(index)), shape);
}

/// An array of `shape` that is zero but for y.flat[index[i]] += x.flat[i].
template <std::floating_point T, class Integer>
BasicVar<T> scatter(const BasicVar<T>& x, std::vector<Integer> index, const Shape& shape) {
  if (static_cast<Index>(index.size()) != x.size())
    throw ShapeError(concat("scatter: ", index.size(), " positions for ", x.size(), " values"));
  auto y = BasicTensor<T>::zeros(shape);
  for (std::size_t i = 0; i < index.size(); ++i) {
    if (index[i] < 0 || static_cast<Index>(index[i]) >= y.size())
      throw ValueError(concat("scatter: position ", index[i], " of ", y.size()));
    y[static_cast<Index>(index[i])] += x.value()[static_cast<Index>(i)];
  }
  return x.tape().record(std::move(y), x.requires_grad(),
                         [gx = x.grad_ref(), index = std::move(index)](const BasicTensor<T>& dy) {
                           auto dx = BasicTensor<T>::empty(gx.shape());
                           for (std::size_t i = 0; i < index.size(); ++i)
                             dx[static_cast<Index>(i)] = dy[static_cast<Index>(index[i])];
                           gx.add(dx);
                         });
}

}  // namespace graft::inline v0_1
