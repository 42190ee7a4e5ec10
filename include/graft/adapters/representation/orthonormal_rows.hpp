#pragma once

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/method.hpp"
#include "graft/autograd/ops/householder_rows.hpp"
#include "graft/tensor/decompositions.hpp"
#include "graft/tensor/transposed.hpp"

/// Matrices whose rows stay orthonormal while they are trained.
namespace graft::inline v0_1 {

/// The orthonormal rows next to a: with aᵀ = Q T and the diagonal of T not negative, Qᵀ. a: [r, d],
/// r ≤ d. @throws ShapeError for more rows than columns.
template <std::floating_point T>
BasicTensor<T> retracted_rows(const BasicTensor<T>& a) {
  if (a.rank() != 2 || a.rows() > a.cols())
    throw ShapeError(
        concat("retraction: shape ", a.shape().text(), ", expected no more rows than columns"));
  const auto factors = qr(transposed(a));
  auto rows = transposed(factors.q);
  for (Index i = 0; i < rows.rows(); ++i)
    if (factors.r(i, i) < 0)
      for (Index j = 0; j < rows.cols(); ++j) rows(i, j) = -rows(i, j);
  return rows;
}

/// The part of a gradient along the manifold of orthonormal rows: G − ½ (G Rᵀ + R Gᵀ) R. g, rows:
/// [r, d].
template <std::floating_point T>
BasicTensor<T> tangent_gradient(const BasicTensor<T>& g, const BasicTensor<T>& rows) {
  const auto one = detail::product(g, rows, T{1}, false, true),
             other = detail::product(rows, g, T{1}, false, true);
  auto mean = BasicTensor<T>::empty(one.shape());
  for (Index i = 0; i < mean.size(); ++i) mean[i] = (one[i] + other[i]) / 2;
  auto result = g.clone();
  kernels::gemm(false, false, g.rows(), g.cols(), g.rows(), T{-1}, mean.data(), mean.cols(),
                rows.data(), rows.cols(), T{1}, result.data(), result.cols());
  return result;
}

/// A trained matrix R of orthonormal rows, [r, d].
///
/// `retraction`: R itself is trained, its gradient is that of a free matrix, and after each step of
/// the optimiser the rows are made orthonormal again (RetractRows); tensor `<name>`, loaded as it
/// is. `householder`: R = householder_rows(V), V free: no step leaves the manifold; tensor
/// `<name>_vectors`. Both hold r d numbers, r (r + 1) / 2 of which are no degrees of freedom.
/// Begins at the rows of a random orthonormal matrix.
template <std::floating_point T>
class OrthonormalRows {
 public:
  OrthonormalRows() = default;
  /// @throws ValueError for more rows than columns.
  OrthonormalRows(std::string name, Index r, Index d, bool householder, InitContext<T>& context)
      : name_(std::move(name)), householder_(householder) {
    if (r > d)
      throw ValueError(
          concat("orthonormal rows: r ", r, " for a width of ", d, ", expected no more"));
    auto value = context.loading ? BasicTensor<T>::zeros({r, d})
                                 : detail::normal_tensor<T>(context.generator, {r, d}, 1);
    if (!householder && !context.loading) value = retracted_rows(value);
    parameter_ = BasicParameter<T>(std::move(value));
  }
  BasicVar<T> operator()(BasicTape<T>& tape) const {
    const auto value = tape.parameter(parameter_);
    return householder_ ? householder_rows(value) : value;
  }
  std::pair<std::string, BasicParameter<T>> tensor() const {
    return {householder_ ? name_ + "_vectors" : name_, parameter_};
  }

 private:
  std::string name_;
  bool householder_ = false;
  BasicParameter<T> parameter_;
};

/// Makes rows orthonormal again after each step of the optimiser.
template <std::floating_point T>
class RetractRows final : public Procedure<T> {
 public:
  /// The tensors of these parts whose name ends in `ending`.
  RetractRows(const std::vector<PlacedPart<T>>& parts, const std::string& ending) {
    for (const auto& placed : parts)
      for (const auto& tensor : placed.part->tensors())
        if (tensor.parameter && tensor.name.ends_with(ending)) rows_.push_back(tensor.parameter);
  }
  void after_step(const StepInfo&) override {
    for (const auto& rows : rows_) rows.assign(retracted_rows(rows.value()));
  }

 private:
  std::vector<BasicParameter<T>> rows_;
};

}  // namespace graft::inline v0_1
