#pragma once

#include <algorithm>
#include <concepts>
#include <vector>

#include "graft/tensor/tensor.hpp"

/// Matrix decompositions, by Eigen, in double precision inside. Their bodies are in the compiled
/// library where a program links it, because Eigen's take longer to compile than all the rest.
namespace graft::inline v0_1 {

namespace detail {

// Templates, of T = double alone, so that a program that calls none of them compiles none of
// Eigen's code.

/// Row-major a: [rows, cols], p = min(rows, cols): u: [rows, p], s: [p], v: [cols, p].
template <std::same_as<double> T>
void thin_svd(const T* a, Index rows, Index cols, T* u, T* s, T* v);
/// q: [rows, p], r: [p, cols].
template <std::same_as<double> T>
void reduced_qr(const T* a, Index rows, Index cols, T* q, T* r);
/// a: [n, n], replaced by its inverse.
template <std::same_as<double> T>
void invert(T* a, Index n);
/// a: [n, n], symmetric, replaced by its eigenvectors as columns; values: [n], ascending.
template <std::same_as<double> T>
void symmetric_eigen(T* a, Index n, T* values);

template <class T>
std::vector<double> matrix_elements(const char* operation, const BasicTensor<T>& a) {
  if (a.rank() != 2)
    throw ShapeError(concat(operation, ": shape ", a.shape().text(), ", expected a matrix"));
  return std::vector<double>(a.data(), a.data() + a.size());
}

template <class T>
BasicTensor<T> from_elements(const std::vector<double>& elements, Shape shape) {
  auto t = BasicTensor<T>::empty(shape);
  std::transform(elements.begin(), elements.end(), t.data(),
                 [](double x) { return static_cast<T>(x); });
  return t;
}

}  // namespace detail

/// A = U diag(S) Vᵀ with S descending; thin: for a of m × n and p = min(m, n), u: [m, p], s: [p],
/// v: [n, p].
template <std::floating_point T>
struct SingularValues {
  BasicTensor<T> u;
  BasicTensor<T> s;
  BasicTensor<T> v;
};

/// @throws ShapeError if a is not a matrix.
template <std::floating_point T>
SingularValues<T> svd(const BasicTensor<T>& a) {
  const auto m = detail::matrix_elements("svd", a);
  const Index p = std::min(a.rows(), a.cols());
  std::vector<double> u(static_cast<std::size_t>(a.rows() * p));
  std::vector<double> s(static_cast<std::size_t>(p));
  std::vector<double> v(static_cast<std::size_t>(a.cols() * p));
  detail::thin_svd(m.data(), a.rows(), a.cols(), u.data(), s.data(), v.data());
  return {detail::from_elements<T>(u, {a.rows(), p}), detail::from_elements<T>(s, {p}),
          detail::from_elements<T>(v, {a.cols(), p})};
}

/// A = Q R, reduced: for a of m × n and p = min(m, n), q: [m, p], r: [p, n]. Signs as LAPACK's
/// Householder QR.
template <std::floating_point T>
struct QrFactors {
  BasicTensor<T> q;
  BasicTensor<T> r;
};

/// @throws ShapeError if a is not a matrix.
template <std::floating_point T>
QrFactors<T> qr(const BasicTensor<T>& a) {
  const auto m = detail::matrix_elements("qr", a);
  const Index p = std::min(a.rows(), a.cols());
  std::vector<double> q(static_cast<std::size_t>(a.rows() * p));
  std::vector<double> r(static_cast<std::size_t>(p * a.cols()));
  detail::reduced_qr(m.data(), a.rows(), a.cols(), q.data(), r.data());
  return {detail::from_elements<T>(q, {a.rows(), p}), detail::from_elements<T>(r, {p, a.cols()})};
}

/// Inverse of a square matrix or of each matrix of a stack [..., n, n]. @throws ShapeError if it is
/// not square.
template <std::floating_point T>
BasicTensor<T> inverse(const BasicTensor<T>& a) {
  if (a.rank() < 2 || a.dim(-1) != a.dim(-2))
    throw ShapeError(concat("inverse: shape ", a.shape().text(), ", expected square matrices"));
  const Index n = a.cols();
  std::vector<double> elements(a.data(), a.data() + a.size());
  if (n > 0)
    for (Index start = 0; start < a.size(); start += n * n)
      detail::invert(elements.data() + start, n);
  return detail::from_elements<T>(elements, a.shape());
}

/// A = V diag(values) Vᵀ of a symmetric matrix, values ascending; vectors: [n, n], in columns.
template <std::floating_point T>
struct SymmetricEigen {
  BasicTensor<T> values, vectors;
};

/// Reads the lower triangle. @throws ShapeError if a is not square.
template <std::floating_point T>
SymmetricEigen<T> symmetric_eigen(const BasicTensor<T>& a) {
  auto m = detail::matrix_elements("symmetric_eigen", a);
  const Index n = a.rows();
  if (a.cols() != n)
    throw ShapeError(
        concat("symmetric_eigen: shape ", a.shape().text(), ", expected a square matrix"));
  std::vector<double> values(static_cast<std::size_t>(n));
  if (n > 0) detail::symmetric_eigen(m.data(), n, values.data());
  return {detail::from_elements<T>(values, {n}), detail::from_elements<T>(m, {n, n})};
}

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/tensor/impl/decompositions_impl.hpp"
#endif
