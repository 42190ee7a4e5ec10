#pragma once

#include <concepts>

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
SingularValues<T> svd(const BasicTensor<T>& a);

/// A = Q R, reduced: for a of m × n and p = min(m, n), q: [m, p], r: [p, n]. Signs as LAPACK's
/// Householder QR.
template <std::floating_point T>
struct QrFactors {
  BasicTensor<T> q;
  BasicTensor<T> r;
};

/// @throws ShapeError if a is not a matrix.
template <std::floating_point T>
QrFactors<T> qr(const BasicTensor<T>& a);

/// Inverse of a square matrix or of each matrix of a stack [..., n, n]. @throws ShapeError if it is
/// not square.
template <std::floating_point T>
BasicTensor<T> inverse(const BasicTensor<T>& a);

/// A = V diag(values) Vᵀ of a symmetric matrix, values ascending; vectors: [n, n], in columns.
template <std::floating_point T>
struct SymmetricEigen {
  BasicTensor<T> values, vectors;
};

/// Reads the lower triangle. @throws ShapeError if a is not square.
template <std::floating_point T>
SymmetricEigen<T> symmetric_eigen(const BasicTensor<T>& a);

}  // namespace graft::inline v0_1

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/tensor/impl/decompositions_impl.hpp"
#endif
