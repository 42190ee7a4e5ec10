#pragma once

#include <algorithm>
#include <array>
#include <concepts>
#include <type_traits>
#include <utility>
#include <vector>
#include <xtensor/xadapt.hpp>
#include <xtensor/xarray.hpp>
#include <xtensor/xlayout.hpp>
#include <xtensor/xtensor.hpp>

#include "graft/layers/dense_linear.hpp"
#include "graft/layers/in_out_linear.hpp"

/// xtensor's containers and views as frozen layers and as input, and graft's tensors as xtensor's.
///
/// Nothing is copied: layers, tensors and adaptors point into the memory that they were made from,
/// which must outlive them; `copy` copies. Needs the target graft::xtensor.
namespace graft::inline v0_1::interop {

/// A container, an adaptor or a view whose elements lie in memory: not 2 * w.
template <class E>
concept XtensorInMemory = requires(const std::remove_cvref_t<E>& e) {
  e.data();
  e.data_offset();
  e.strides();
  e.shape();
} && std::floating_point<typename std::remove_cvref_t<E>::value_type>;

namespace detail {

/// A matrix in memory and which way its rows lie.
template <class T>
struct MemoryMatrix {
  const T* data = nullptr;
  Index rows = 0, cols = 0, row_stride = 0, col_stride = 0;
};

template <class E>
auto memory_matrix(const char* what, const E& e) {
  using T = typename E::value_type;
  if (e.dimension() != 2)
    throw ShapeError(concat(what, ": ", e.dimension(), " axes, expected a matrix"));
  MemoryMatrix<T> m;
  m.data = e.data() + e.data_offset();
  m.rows = static_cast<Index>(e.shape()[0]);
  m.cols = static_cast<Index>(e.shape()[1]);
  // xtensor's stride of an axis of one element is 0.
  m.row_stride = static_cast<Index>(e.strides()[0]);
  m.col_stride = m.cols == 1 ? 1 : static_cast<Index>(e.strides()[1]);
  return m;
}

/// @param row_major  the order that is expected
template <class T>
MatrixView<const T> view_of(const char* what, const MemoryMatrix<T>& m, bool row_major) {
  const Index inner = row_major ? m.cols : m.rows;
  Index near = row_major ? m.col_stride : m.row_stride,
        far = row_major ? m.row_stride : m.col_stride;
  if (inner == 1) near = 1;
  if (near != 1 || (far != 0 && far < inner))
    throw ShapeError(concat(what, ": strides ", m.row_stride, " and ", m.col_stride, "; expected ",
                            row_major ? "row" : "column",
                            "-major elements that are neighbours in memory: copy it first"));
  return {m.data, row_major ? m.rows : m.cols, inner, std::max(far, inner)};
}

template <class E>
constexpr bool kColumnMajor =
    std::remove_cvref_t<E>::static_layout == xt::layout_type::column_major;

}  // namespace detail

/// y = x Wᵀ + b for a frozen w of out × in: DenseLinear, or InOutLinear where the type says
/// column-major. Containers and views whose type leaves the order open must be row-major.
/// @throws ShapeError for another number of axes, other strides, or a bias of another size.
template <XtensorInMemory E>
auto out_by_in(const E& weight, BasicTensor<typename E::value_type> bias = {}) {
  using T = typename E::value_type;
  const auto memory = detail::memory_matrix("interop::out_by_in", weight);
  const auto view = detail::view_of("interop::out_by_in", memory, !detail::kColumnMajor<E>);
  if constexpr (detail::kColumnMajor<E>) {
    return BasicInOutLinear<T>(view, std::move(bias));
  } else {
    return BasicDenseLinear<T>(view, std::move(bias));
  }
}
/// y = x V + b for a frozen v of in × out.
template <XtensorInMemory E>
auto in_by_out(const E& weight, BasicTensor<typename E::value_type> bias = {}) {
  using T = typename E::value_type;
  const auto memory = detail::memory_matrix("interop::in_by_out", weight);
  const auto view = detail::view_of("interop::in_by_out", memory, !detail::kColumnMajor<E>);
  if constexpr (detail::kColumnMajor<E>) {
    return BasicDenseLinear<T>(view, std::move(bias));
  } else {
    return BasicInOutLinear<T>(view, std::move(bias));
  }
}
// A container that goes away with the statement cannot be pointed into.
template <class T, std::size_t N, xt::layout_type L>
void out_by_in(xt::xtensor<T, N, L>&&, BasicTensor<T> = {}) = delete;
template <class T, std::size_t N, xt::layout_type L>
void in_by_out(xt::xtensor<T, N, L>&&, BasicTensor<T> = {}) = delete;
template <class T, xt::layout_type L>
void out_by_in(xt::xarray<T, L>&&, BasicTensor<T> = {}) = delete;
template <class T, xt::layout_type L>
void in_by_out(xt::xarray<T, L>&&, BasicTensor<T> = {}) = delete;

/// A container of up to six axes as a tensor; no copy.
/// @throws ShapeError for elements that do not lie row by row without gaps: `copy` puts them so.
template <XtensorInMemory E>
BasicTensor<typename E::value_type> tensor(const E& x) {
  using T = typename E::value_type;
  static_assert(!detail::kColumnMajor<E>,
                "interop::tensor: the container is column-major; use interop::copy");
  Shape shape;
  for (const auto n : x.shape()) shape.append(static_cast<Index>(n));
  Index expected = 1;
  for (std::size_t axis = x.dimension(); axis-- > 0;) {
    const auto n = static_cast<Index>(x.shape()[axis]);
    if (n != 1 && static_cast<Index>(x.strides()[axis]) != expected)
      throw ShapeError(concat("interop::tensor: axis ", axis, " has a stride of ",
                              x.strides()[axis], ", expected ", expected, "; use interop::copy"));
    expected *= n;
  }
  return BasicTensor<T>::borrow(const_cast<T*>(x.data() + x.data_offset()), shape);
}

// Tensors of a container that goes away would outlive it.
template <class T, std::size_t N, xt::layout_type L>
void tensor(xt::xtensor<T, N, L>&&) = delete;
template <class T, xt::layout_type L>
void tensor(xt::xarray<T, L>&&) = delete;

/// A copy of any expression as a tensor.
template <class E>
auto copy(const xt::xexpression<E>& expression) {
  const E& x = expression.derived_cast();
  using T = std::remove_cvref_t<typename E::value_type>;
  Shape shape;
  for (const auto n : x.shape()) shape.append(static_cast<Index>(n));
  auto t = BasicTensor<T>::empty(shape);
  std::copy(x.template begin<xt::layout_type::row_major>(),
            x.template end<xt::layout_type::row_major>(), t.begin());
  return t;
}

/// A tensor of graft as an adaptor of xtensor; no copy. Assign it to a container to keep it.
template <std::floating_point T>
auto xtensor(const BasicTensor<T>& t) {
  const std::vector<std::size_t> shape(t.shape().begin(), t.shape().end());
  return xt::adapt(static_cast<const T*>(t.data()), static_cast<std::size_t>(t.size()),
                   xt::no_ownership(), shape);
}

}  // namespace graft::inline v0_1::interop
