#pragma once

#include <Eigen/Core>
#include <algorithm>
#include <concepts>
#include <type_traits>
#include <utility>

#include "graft/layers/dense_linear.hpp"
#include "graft/layers/in_out_linear.hpp"

/// Eigen's matrices as frozen layers and as input, and graft's tensors as Eigen's matrices.
///
/// Nothing is copied: layers, tensors and maps point into the memory that they were made from,
/// which must outlive them. `copy` says where something is copied. Storage order is part of an
/// Eigen type, so a layer has the right one for both orders; which way round a weight is cannot be
/// seen from its type, so the name of the function says it: out_by_in or in_by_out.
namespace graft::inline v0_1::interop {

/// An Eigen matrix, map or block whose elements lie in memory: not 2 * W, not A * B.
template <class M>
concept EigenInMemory =
    requires(const std::remove_cvref_t<M>& m) {
      { m.data() } -> std::same_as<const typename std::remove_cvref_t<M>::Scalar*>;
      m.outerStride();
      m.innerStride();
    } && std::floating_point<typename std::remove_cvref_t<M>::Scalar> &&
    std::derived_from<std::remove_cvref_t<M>, Eigen::DenseBase<std::remove_cvref_t<M>>>;

namespace detail {

template <class M>
constexpr bool kRowMajor = bool(std::remove_cvref_t<M>::IsRowMajor);

/// The matrix as it lies in memory: of a column-major one the transposed.
template <class M>
MatrixView<const typename M::Scalar> memory_of(const char* what, const M& m) {
  if (m.innerStride() != 1)
    throw ShapeError(concat(what, ": elements with a stride of ", m.innerStride(),
                            "; expected neighbours in memory: copy it into a matrix first"));
  return {m.data(), m.outerSize(), m.innerSize(), std::max(m.outerStride(), m.innerSize())};
}

/// The layer for a weight whose rows in memory are outputs, or inputs.
template <bool RowsAreOutputs, class T>
auto layer_of(MatrixView<const T> memory, BasicTensor<T> bias) {
  if constexpr (RowsAreOutputs) {
    return BasicDenseLinear<T>(memory, std::move(bias));
  } else {
    return BasicInOutLinear<T>(memory, std::move(bias));
  }
}

}  // namespace detail

/// A vector of Eigen as a tensor, [size]; no copy.
/// @throws ShapeError for elements that are not neighbours in memory.
template <EigenInMemory V>
  requires(bool(V::IsVectorAtCompileTime))
BasicTensor<typename V::Scalar> vector(const V& v) {
  using T = typename V::Scalar;
  if (v.size() > 1 && v.innerStride() != 1)
    throw ShapeError(concat("interop::vector: a stride of ", v.innerStride(), ", expected 1"));
  return BasicTensor<T>::borrow(const_cast<T*>(v.data()), {v.size()});
}

/// y = x Wᵀ + b for a frozen W of out × in, as torch has it. W: a matrix, a Map or a block of
/// either storage order; DenseLinear if it is row-major, else InOutLinear; bias: what `vector`
/// gives.
/// @throws ShapeError for elements that are not neighbours in memory, or a bias of another size.
template <EigenInMemory M>
auto out_by_in(const M& weight, BasicTensor<typename M::Scalar> bias = {}) {
  return detail::layer_of<detail::kRowMajor<M>>(detail::memory_of("interop::out_by_in", weight),
                                                std::move(bias));
}
/// y = x V + b for a frozen V of in × out, as Keras has it.
template <EigenInMemory M>
auto in_by_out(const M& weight, BasicTensor<typename M::Scalar> bias = {}) {
  return detail::layer_of<!detail::kRowMajor<M>>(detail::memory_of("interop::in_by_out", weight),
                                                 std::move(bias));
}
// A matrix that goes away with the statement cannot be pointed into. (Maps and blocks may: the
// memory is somebody else's.)
template <class S, int R, int C, int O, int MR, int MC>
void out_by_in(Eigen::Matrix<S, R, C, O, MR, MC>&&, BasicTensor<S> = {}) = delete;
template <class S, int R, int C, int O, int MR, int MC>
void in_by_out(Eigen::Matrix<S, R, C, O, MR, MC>&&, BasicTensor<S> = {}) = delete;

/// Rows of input as a tensor, [rows, columns]; no copy. For row-major matrices without gaps: the
/// rows of a column-major one are no rows in memory, `copy` makes them.
/// @throws ShapeError for a block with gaps between its rows.
template <EigenInMemory M>
BasicTensor<typename M::Scalar> rows(const M& x) {
  using T = typename M::Scalar;
  static_assert(detail::kRowMajor<M> || M::IsVectorAtCompileTime,
                "interop::rows: the matrix is column-major; use interop::copy");
  const auto view = detail::memory_of("interop::rows", x);
  if (!view.contiguous())
    throw ShapeError(concat("interop::rows: rows of ", view.cols(), " elements lie ",
                            view.row_stride(), " apart; use interop::copy"));
  return BasicTensor<T>::borrow(const_cast<T*>(view.data()), {x.rows(), x.cols()});
}

// Tensors of a matrix that goes away would outlive it.
template <class S, int R, int C, int O, int MR, int MC>
void rows(Eigen::Matrix<S, R, C, O, MR, MC>&&) = delete;
template <class S, int R, int C, int O, int MR, int MC>
void vector(Eigen::Matrix<S, R, C, O, MR, MC>&&) = delete;

/// A copy of any expression as a tensor, [rows, columns].
template <class Derived>
BasicTensor<typename Derived::Scalar> copy(const Eigen::DenseBase<Derived>& x) {
  using T = typename Derived::Scalar;
  auto t = BasicTensor<T>::empty({x.rows(), x.cols()});
  using RowMajor = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  Eigen::Map<RowMajor>(t.data(), x.rows(), x.cols()) = x.derived();
  return t;
}

/// Rows that graft holds, as a matrix of Eigen; no copy. Assigning it to a matrix of either storage
/// order copies the elements to their places.
template <class T>
auto eigen(MatrixView<const T> m) {
  using RowMajor = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  return Eigen::Map<const RowMajor, 0, Eigen::OuterStride<>>(m.data(), m.rows(), m.cols(),
                                                             Eigen::OuterStride<>(m.row_stride()));
}
template <std::floating_point T>
auto eigen(const BasicTensor<T>& t) {
  return eigen(MatrixView<const T>(t.matrix()));
}

}  // namespace graft::inline v0_1::interop
