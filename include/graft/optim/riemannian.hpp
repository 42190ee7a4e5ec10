#pragma once

#include <utility>
#include <vector>

#include "graft/autograd/low_rank_term.hpp"
#include "graft/kernels/gemm.hpp"
#include "graft/optim/damped_inverse.hpp"

namespace graft::inline v0_1 {

/// Riemannian preconditioning of low-rank factors, before the step of any optimiser:
/// g_A ← (Bᵀ B + δ I)⁻¹ g_A and g_B ← g_B (A Aᵀ + δ I)⁻¹, the steepest descent of B A in the
/// metric in which the split into factors does not matter.
///
///     optimizer.before_step = [preconditioner] { preconditioner.apply(); };
///
/// A pair without gradients stays as it is. Cost: products with rank × rank matrices. Source: Zhang
/// and Pilanci 2024 (arXiv:2402.02347), eq. 5; δ = 10⁻² as in Hugging Face PEFT.
template <std::floating_point T>
class BasicRiemannianPreconditioner {
 public:
  explicit BasicRiemannianPreconditioner(std::vector<LowRankTerm<T>> pairs, double damping = 1e-2)
      : pairs_(std::move(pairs)), damping_(damping) {
    if (pairs_.empty()) throw ValueError("Riemannian preconditioner: no pair of factors");
    if (!(damping >= 0)) throw ValueError(concat("Riemannian preconditioner: damping ", damping));
  }

  /// Replaces the gradients of all pairs.
  void apply() const {
    for (const auto& pair : pairs_) {
      const auto ga = pair.a.grad(), gb = pair.b.grad();
      const Index r = pair.a.value().rows();
      if (ga && pair.a.trainable()) {
        const auto inverse = detail::damped_gram_inverse(pair.b.value(), damping_, true);
        auto g = BasicTensor<T>::empty(ga.shape());
        kernels::gemm(false, false, r, ga.cols(), r, T{1}, inverse.data(), r, ga.data(), ga.cols(),
                      T{0}, g.data(), ga.cols());
        pair.a.mutable_grad() = g;
      }
      if (gb && pair.b.trainable()) {
        const auto inverse = detail::damped_gram_inverse(pair.a.value(), damping_, false);
        auto g = BasicTensor<T>::empty(gb.shape());
        kernels::gemm(false, false, gb.rows(), r, r, T{1}, gb.data(), r, inverse.data(), r, T{0},
                      g.data(), r);
        pair.b.mutable_grad() = g;
      }
    }
  }

 private:
  std::vector<LowRankTerm<T>> pairs_;
  double damping_;
};

using RiemannianPreconditioner = BasicRiemannianPreconditioner<float>;

}  // namespace graft::inline v0_1
