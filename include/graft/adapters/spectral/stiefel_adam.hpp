#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <type_traits>
#include <utility>

#include "graft/adapters/initial_values.hpp"
#include "graft/adapters/procedure_state.hpp"
#include "graft/tensor/decompositions.hpp"

namespace graft::inline v0_1 {

namespace detail {

/// a + c b, element by element.
template <std::floating_point T>
BasicTensor<T> plus(const BasicTensor<T>& a, const BasicTensor<T>& b,
                    std::type_identity_t<T> c = 1) {
  auto sum = BasicTensor<T>::empty(a.shape());
  for (Index i = 0; i < a.size(); ++i) sum[i] = a[i] + c * b[i];
  return sum;
}
/// exp(A) by its series, of A / 2ᵏ and then squared k times.
template <std::floating_point T>
BasicTensor<T> matrix_exponential(BasicTensor<T> a) {
  T largest = 0;
  for (const T v : a) largest = std::max(largest, std::abs(v));
  int halvings = 0;
  for (T size = largest * static_cast<T>(a.rows()); size > T{0.5}; size /= 2) ++halvings;
  a = plus(BasicTensor<T>::zeros(a.shape()), a, std::ldexp(T{1}, -halvings));
  auto sum = BasicTensor<T>::identity(a.rows()), term = sum.clone();
  for (int k = 1; k <= 16; ++k) {  // 0.5¹⁶ / 16! is below 1e-18
    term = product(term, a, T{1} / static_cast<T>(k));
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
/// In the precision P inside; a template so that nobody compiles it who does not use it. Source:
/// Zhang et al. 2024 (arXiv:2405.21050), section 3 and the released code.
template <std::floating_point P>
class BasicStiefelAdam {
 public:
  using Matrix = BasicTensor<P>;

  /// @throws ValueError for an unknown retraction.
  explicit BasicStiefelAdam(StiefelAdamConfig config = {}) : config_(std::move(config)) {
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
    return moved(q.template cast<P>(), gradient.template cast<P>()).template cast<T>();
  }

  void keep(detail::ProcedureState& state, const std::string& name) const {
    if (steps_ == 0) return;
    state[name + ".step"] = {static_cast<double>(steps_)};
    detail::keep_values(state, name + ".momentum", momentum_);
    detail::keep_values(state, name + ".square", square_);
  }
  void restore(const detail::ProcedureState& state, const std::string& name, const Shape& shape) {
    steps_ = static_cast<Index>(detail::kept_number(state, name + ".step", 0));
    momentum_ = detail::kept_values<P>(state, name + ".momentum", shape);
    square_ = detail::kept_values<P>(state, name + ".square", shape);
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
    const P t = static_cast<P>(steps_), beta1 = static_cast<P>(config_.beta1),
            beta2 = static_cast<P>(config_.beta2), eps = static_cast<P>(config_.eps);
    const P rate = static_cast<P>(config_.learning_rate) / (1 - std::pow(beta1, t));
    const P share = 1 - std::pow(beta2, t);
    auto xi = Matrix::empty(q.shape());
    for (Index i = 0; i < s; ++i)
      for (Index j = 0; j < s; ++j) {
        const P skew = a(i, j) - a(j, i);
        momentum_(i, j) = beta1 * momentum_(i, j) - (1 - beta1) * skew;
        square_(i, j) = beta2 * square_(i, j) + (1 - beta2) * skew * skew;
        xi(i, j) = rate * momentum_(i, j) / (std::sqrt(square_(i, j) / share) + eps);
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
using StiefelAdam = BasicStiefelAdam<double>;

}  // namespace graft::inline v0_1
