#pragma once

#include <Eigen/Dense>

#include "graft/tensor/tensor.hpp"

/// Matrix decompositions, by Eigen, in double precision inside.
namespace graft {

namespace detail {

template <class T>
using RowMajor = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

template <class T>
Eigen::MatrixXd to_eigen(const char* operation, const BasicTensor<T>& a) {
  if (a.rank() != 2) throw ShapeError(concat(operation, ": shape ", a.shape().text(), ", expected a matrix"));
  return Eigen::Map<const RowMajor<T>>(a.data(), a.rows(), a.cols()).template cast<double>();
}

template <class T, class Derived>
BasicTensor<T> from_eigen(const Eigen::MatrixBase<Derived>& m) {
  auto t = BasicTensor<T>::empty({m.rows(), m.cols()});
  Eigen::Map<RowMajor<T>>(t.data(), m.rows(), m.cols()) = m.template cast<T>();
  return t;
}

}  // namespace detail

/// A = U diag(S) Vᵀ with S descending; thin: for a of m × n and p = min(m, n), u: [m, p], s: [p], v: [n, p].
template <std::floating_point T>
struct SingularValues {
  BasicTensor<T> u;
  BasicTensor<T> s;
  BasicTensor<T> v;
};

template <std::floating_point T>
SingularValues<T> svd(const BasicTensor<T>& a) {
  const Eigen::MatrixXd m = detail::to_eigen("svd", a);
  const Eigen::BDCSVD<Eigen::MatrixXd> result(m, Eigen::ComputeThinU | Eigen::ComputeThinV);
  auto s = detail::from_eigen<T>(result.singularValues());
  return {detail::from_eigen<T>(result.matrixU()), s.reshape({s.size()}), detail::from_eigen<T>(result.matrixV())};
}

/// A = Q R, reduced: for a of m × n and p = min(m, n), q: [m, p], r: [p, n]. Signs as LAPACK's Householder QR.
template <std::floating_point T>
struct QrFactors {
  BasicTensor<T> q;
  BasicTensor<T> r;
};

template <std::floating_point T>
QrFactors<T> qr(const BasicTensor<T>& a) {
  const Eigen::MatrixXd m = detail::to_eigen("qr", a);
  const Eigen::Index p = std::min(m.rows(), m.cols());
  const Eigen::HouseholderQR<Eigen::MatrixXd> result(m);
  const Eigen::MatrixXd q = result.householderQ() * Eigen::MatrixXd::Identity(m.rows(), p);
  Eigen::MatrixXd r = result.matrixQR().topRows(p);
  r.triangularView<Eigen::StrictlyLower>().setZero();
  return {detail::from_eigen<T>(q), detail::from_eigen<T>(r)};
}

/// Inverse of a square matrix or of each matrix of a stack [..., n, n]. @throws ShapeError if it is not square.
template <std::floating_point T>
BasicTensor<T> inverse(const BasicTensor<T>& a) {
  if (a.rank() < 2 || a.dim(-1) != a.dim(-2))
    throw ShapeError(concat("inverse: shape ", a.shape().text(), ", expected square matrices"));
  const Index n = a.cols(), stack = n == 0 ? 0 : a.size() / (n * n);
  auto y = BasicTensor<T>::empty(a.shape());
  for (Index s = 0; s < stack; ++s) {
    const Eigen::MatrixXd m =
        Eigen::Map<const detail::RowMajor<T>>(a.data() + s * n * n, n, n).template cast<double>();
    Eigen::Map<detail::RowMajor<T>>(y.data() + s * n * n, n, n) = m.partialPivLu().inverse().template cast<T>();
  }
  return y;
}

}  // namespace graft
