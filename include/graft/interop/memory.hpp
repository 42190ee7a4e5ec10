#pragma once

#include <concepts>
#include <cstddef>
#include <span>
#include <type_traits>
#include <utility>

#include "graft/layers/dense_linear.hpp"
#include "graft/layers/in_out_linear.hpp"

/// Weights in plain memory as frozen layers.
///
/// Nothing is copied: the layer points into the memory, which must outlive it. Which way round a
/// weight is cannot be seen from numbers in memory, so the name of the function says it: out_by_in
/// or in_by_out, both with the sizes in the order of the name, both row after row.
namespace graft::inline v0_1::interop {

/// y = x Wᵀ + b for a frozen W of out × in, as torch has it; row i begins at
/// weight[i * leading_dimension].
/// @throws ShapeError for a leading dimension below `in`, or a bias of another size.
template <std::floating_point T>
BasicDenseLinear<T> out_by_in(const T* weight, Index out, Index in, Index leading_dimension,
                              std::type_identity_t<BasicTensor<T>> bias = {}) {
  return BasicDenseLinear<T>(MatrixView<const T>(weight, out, in, leading_dimension),
                             std::move(bias));
}
/// y = x V + b for a frozen V of in × out, as Keras has it; the same otherwise. A column-major W of
/// out × in is such a V.
template <std::floating_point T>
BasicInOutLinear<T> in_by_out(const T* weight, Index in, Index out, Index leading_dimension,
                              std::type_identity_t<BasicTensor<T>> bias = {}) {
  return BasicInOutLinear<T>(MatrixView<const T>(weight, in, out, leading_dimension),
                             std::move(bias));
}

namespace detail {

template <class T, std::size_t N>
const T* whole(const char* what, std::span<T, N> weight, Index rows, Index cols) {
  if (rows < 0 || cols < 0 || static_cast<Index>(weight.size()) != rows * cols)
    throw ShapeError(concat(what, ": ", weight.size(), " elements, expected ", rows, " x ", cols));
  return weight.data();
}

}  // namespace detail

/// The same for all elements of a span. @throws ShapeError if their number is not out · in.
template <class T, std::size_t N>
  requires std::floating_point<std::remove_const_t<T>>
auto out_by_in(std::span<T, N> weight, Index out, Index in,
               BasicTensor<std::remove_const_t<T>> bias = {}) {
  return out_by_in<std::remove_const_t<T>>(detail::whole("interop::out_by_in", weight, out, in),
                                           out, in, in, std::move(bias));
}
template <class T, std::size_t N>
  requires std::floating_point<std::remove_const_t<T>>
auto in_by_out(std::span<T, N> weight, Index in, Index out,
               BasicTensor<std::remove_const_t<T>> bias = {}) {
  return in_by_out<std::remove_const_t<T>>(detail::whole("interop::in_by_out", weight, in, out), in,
                                           out, out, std::move(bias));
}

}  // namespace graft::inline v0_1::interop
