#pragma once

#include "graft/kernels/frozen_weight.hpp"
#include "graft/kernels/gemm.hpp"
#include "graft/layers/concepts.hpp"

namespace graft::inline v0_1::detail {

/// A low-rank product as the kernels of frozen weights take it; nothing for a null term.
inline kernels::LowRankTerm kernel_term(const LowRankProduct<float>* term) {
  if (term == nullptr) return {};
  return {term->h.data(), term->h.row_stride(), term->p.data(), term->p.row_stride(),
          term->h.cols()};
}

/// y += h p, for layers whose own product cannot take the term in; nothing for a null term.
template <std::floating_point T>
void add_low_rank(const LowRankProduct<T>* term, MatrixView<T> y) {
  if (term == nullptr) return;
  kernels::gemm(false, false, y.rows(), y.cols(), term->h.cols(), T{1}, term->h.data(),
                term->h.row_stride(), term->p.data(), term->p.row_stride(), T{1}, y.data(),
                y.row_stride());
}

}  // namespace graft::inline v0_1::detail
