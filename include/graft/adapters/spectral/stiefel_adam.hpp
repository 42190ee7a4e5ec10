#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/procedure_state.hpp"
#include "graft/tensor/decompositions.hpp"

namespace graft::inline v0_1 {

namespace detail {

/// a + c b, element by element.
inline BasicTensor<double> plus(const BasicTensor<double>& a, const BasicTensor<double>& b,
                                double c = 1) {
  auto sum = BasicTensor<double>::empty(a.shape());
  for (Index i = 0; i < a.size(); ++i) sum[i] = a[i] + c * b[i];
  return sum;
}
/// exp(A) by its series, of A / 2ᵏ and then squared k times.
inline BasicTensor<double> matrix_exponential(BasicTensor<double> a) {
  double largest = 0;
  for (const double v : a) largest = std::max(largest, std::abs(v));
  int halvings = 0;
  for (double size = largest * static_cast<double>(a.rows()); size > 0.5; size /= 2) ++halvings;
  a = plus(BasicTensor<double>::zeros(a.shape()), a, std::ldexp(1.0, -halvings));
  auto sum = BasicTensor<double>::identity(a.rows()), term = sum.clone();
  for (int k = 1; k <= 16; ++k) {  // 0.5¹⁶ / 16! is below 1e-18
    term = product(term, a, 1.0 / k);
    sum = plus(sum, term);
  }
  for (int k = 0; k < halvings; ++k) sum = product(sum, sum);
  return sum;
}

}  // namespace detail

/// Settings of the orthogonal Adam.
struct StiefelAdamConfig {
  double learning_rate = 5e-5;
  double beta1 = 0.9, beta2 = 0.99;
  double eps = 1e-5;
  std::string retraction = "euler";  ///< euler, cayley or exp
};

/// Adam on the group of orthogonal matrices, for one Q [s, s] with the Euclidean gradient G:
///
///     S = Qᵀ G − Gᵀ Q,  Y ← β₁ Y − (1 − β₁) S,  p ← β₂ p + (1 − β₂) S ⊙ S
///     ξ = lr / (1 − β₁ᵗ) · Y / (√(p / (1 − β₂ᵗ)) + ε)   (element by element)
///     Q ← Q + Q ξ,  or Q (I − ξ/2)⁻¹ (I + ξ/2),  or Q exp(ξ);  then Q ← Q (Qᵀ Q)^(−1/2).
///
/// In double precision inside. Source: Zhang et al. 2024 (arXiv:2405.21050), section 3 and the
/// released code.
class StiefelAdam {
 public:
  using Matrix = BasicTensor<double>;

  /// @throws ValueError for an unknown retraction.
  explicit StiefelAdam(StiefelAdamConfig config = {}) : config_(std::move(config)) {
    if (config_.retraction != "euler" && config_.retraction != "cayley" &&
        config_.retraction != "exp")
      throw ValueError(concat("orthogonal Adam: retraction '", config_.retraction,
                              "', expected euler, cayley or exp"));
  }

  /// Q after one more step.
  template <std::floating_point T>
  BasicTensor<T> step(const BasicTensor<T>& q, const BasicTensor<T>& gradient) {
    if (q.rank() != 2 || q.rows() != q.cols() || gradient.shape() != q.shape())
      throw ShapeError(concat("orthogonal Adam: matrix ", q.shape().text(), ", gradient ",
                              gradient.shape().text(), ", expected the same square shape"));
    const auto as_double = [&](const BasicTensor<T>& t) {
      return Matrix::from(std::vector<double>(t.begin(), t.end()), t.shape());
    };
    const auto next = moved(as_double(q), as_double(gradient));
    return BasicTensor<T>::from(std::vector<double>(next.begin(), next.end()), q.shape());
  }

  void keep(detail::ProcedureState& state, const std::string& name) const {
    if (steps_ == 0) return;
    state[name + ".step"] = {static_cast<double>(steps_)};
    detail::keep_values(state, name + ".momentum", momentum_);
    detail::keep_values(state, name + ".square", square_);
  }
  void restore(const detail::ProcedureState& state, const std::string& name, const Shape& shape) {
    steps_ = static_cast<Index>(detail::kept_number(state, name + ".step", 0));
    momentum_ = detail::kept_values<double>(state, name + ".momentum", shape);
    square_ = detail::kept_values<double>(state, name + ".square", shape);
  }

 private:
  Matrix moved(const Matrix& q, const Matrix& gradient) {
    using detail::plus;
    using detail::product;
    const Index s = q.rows();
    if (!momentum_) {
      momentum_ = Matrix::zeros(q.shape());
      square_ = Matrix::zeros(q.shape());
    }
    ++steps_;
    const auto a = product(q, gradient, 1.0, true);  // Qᵀ G
    const double t = static_cast<double>(steps_);
    const double rate = config_.learning_rate / (1 - std::pow(config_.beta1, t));
    const double share = 1 - std::pow(config_.beta2, t);
    auto xi = Matrix::empty(q.shape());
    for (Index i = 0; i < s; ++i)
      for (Index j = 0; j < s; ++j) {
        const double skew = a(i, j) - a(j, i);
        momentum_(i, j) = config_.beta1 * momentum_(i, j) - (1 - config_.beta1) * skew;
        square_(i, j) = config_.beta2 * square_(i, j) + (1 - config_.beta2) * skew * skew;
        xi(i, j) = rate * momentum_(i, j) / (std::sqrt(square_(i, j) / share) + config_.eps);
      }
    const auto one = Matrix::identity(s);
    Matrix next;
    if (config_.retraction == "euler")
      next = plus(q, product(q, xi));
    else if (config_.retraction == "exp")
      next = product(q, detail::matrix_exponential(xi));
    else
      next = product(product(q, inverse(plus(one, xi, -0.5))), plus(one, xi, 0.5));
    // Qᵀ Q = V diag(λ) Vᵀ.
    const auto e = symmetric_eigen(product(next, next, 1.0, true));
    auto scaled = e.vectors.clone();
    for (Index i = 0; i < s; ++i)
      for (Index j = 0; j < s; ++j) scaled(i, j) /= std::sqrt(e.values[j]);
    return product(next, product(scaled, e.vectors, 1.0, false, true));
  }

  StiefelAdamConfig config_;
  Index steps_ = 0;
  Matrix momentum_, square_;
};

}  // namespace graft::inline v0_1
