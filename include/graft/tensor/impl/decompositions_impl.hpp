#pragma once

#include <Eigen/Eigenvalues>
#include <Eigen/LU>
#include <Eigen/QR>
#include <Eigen/SVD>

#include "graft/tensor/decompositions.hpp"

namespace graft::inline v0_1::detail {

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

}  // namespace graft::inline v0_1::detail

namespace graft::inline v0_1 {

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

template <std::floating_point T>
QrFactors<T> qr(const BasicTensor<T>& a) {
  const auto m = detail::matrix_elements("qr", a);
  const Index p = std::min(a.rows(), a.cols());
  std::vector<double> q(static_cast<std::size_t>(a.rows() * p));
  std::vector<double> r(static_cast<std::size_t>(p * a.cols()));
  detail::reduced_qr(m.data(), a.rows(), a.cols(), q.data(), r.data());
  return {detail::from_elements<T>(q, {a.rows(), p}), detail::from_elements<T>(r, {p, a.cols()})};
}

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

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T)                              \
  template SingularValues<T> svd(const BasicTensor<T>&);  \
  template QrFactors<T> qr(const BasicTensor<T>&);        \
  template BasicTensor<T> inverse(const BasicTensor<T>&); \
  template SymmetricEigen<T> symmetric_eigen(const BasicTensor<T>&);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1

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
