#pragma once

#include <Eigen/Eigenvalues>
#include <Eigen/LU>
#include <Eigen/QR>
#include <Eigen/SVD>

#include "graft/tensor/decompositions.hpp"

namespace graft::inline v0_1::detail {

template <class T>
using RowMajorMatrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
template <class T>
using ColumnMatrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic>;

template <std::same_as<double> T>
void thin_svd(const T* a, Index rows, Index cols, T* u, T* s, T* v) {
  const ColumnMatrix<T> m = Eigen::Map<const RowMajorMatrix<T>>(a, rows, cols);
  const Eigen::BDCSVD<ColumnMatrix<T>> result(m, Eigen::ComputeThinU | Eigen::ComputeThinV);
  const Index p = std::min(rows, cols);
  Eigen::Map<RowMajorMatrix<T>>(u, rows, p) = result.matrixU();
  Eigen::Map<Eigen::Matrix<T, Eigen::Dynamic, 1>>(s, p) = result.singularValues();
  Eigen::Map<RowMajorMatrix<T>>(v, cols, p) = result.matrixV();
}

template <std::same_as<double> T>
void reduced_qr(const T* a, Index rows, Index cols, T* q, T* r) {
  const ColumnMatrix<T> m = Eigen::Map<const RowMajorMatrix<T>>(a, rows, cols);
  const Index p = std::min(rows, cols);
  const Eigen::HouseholderQR<ColumnMatrix<T>> result(m);
  const ColumnMatrix<T> thin = result.householderQ() * ColumnMatrix<T>::Identity(rows, p);
  Eigen::Map<RowMajorMatrix<T>>(q, rows, p) = thin;
  Eigen::Map<RowMajorMatrix<T>> upper(r, p, cols);
  upper = result.matrixQR().topRows(p);
  upper.template triangularView<Eigen::StrictlyLower>().setZero();
}

template <std::same_as<double> T>
void invert(T* a, Index n) {
  Eigen::Map<RowMajorMatrix<T>> matrix(a, n, n);
  const ColumnMatrix<T> m = matrix;
  matrix = m.partialPivLu().inverse();
}

template <std::same_as<double> T>
void symmetric_eigen(T* a, Index n, T* values) {
  Eigen::Map<RowMajorMatrix<T>> matrix(a, n, n);
  const Eigen::SelfAdjointEigenSolver<ColumnMatrix<T>> result{ColumnMatrix<T>(matrix)};
  matrix = result.eigenvectors();
  Eigen::Map<Eigen::Matrix<T, Eigen::Dynamic, 1>>(values, n) = result.eigenvalues();
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
template void thin_svd<double>(const double*, Index, Index, double*, double*, double*);
template void reduced_qr<double>(const double*, Index, Index, double*, double*);
template void invert<double>(double*, Index);
template void symmetric_eigen<double>(double*, Index, double*);
#endif

}  // namespace graft::inline v0_1::detail
