#pragma once

#include "graft/kernels/frozen.hpp"
#include "graft/kernels/impl/gemm_impl.hpp"
#include "graft/kernels/impl/packed_weights_impl.hpp"

namespace graft::kernels {
namespace detail {

inline Product frozen_product(Index m, Index n, Index k, const float* a, Index lda, float* c,
                              Index ldc, bool accumulate, const LowRankTerm* low_rank) noexcept {
  Product q;
  q.m = m;
  q.n = n;
  q.k = k;
  q.a = a;
  q.a_row = lda;
  q.c = c;
  q.ldc = ldc;
  q.beta = accumulate ? 1.0f : 0.0f;
  if (low_rank != nullptr) {
    q.h = low_rank->h;
    q.ldh = low_rank->ldh;
    q.p = low_rank->p;
    q.ldp = low_rank->ldp;
    q.rank = low_rank->rank;
  }
  return q;
}

template <class T>
void add_double_term(Index m, Index n, const LowRankTermT<T>* term, T* c, Index ldc) {
  if (term != nullptr && term->rank > 0)
    gemm(false, false, m, n, term->rank, T(1), term->h, term->ldh, term->p, term->ldp, T(1), c,
         ldc);
}

}  // namespace detail

GRAFT_KERNEL void frozen_forward(const FrozenWeight& w, const float* x, Index m, Index ldx,
                                 const float* bias, float* y, Index ldy, bool accumulate,
                                 const LowRankTerm* low_rank) {
  if (m <= 0 || w.out <= 0) return;
  using Form = detail::RightOperand::Form;
  detail::Product q = detail::frozen_product(m, w.out, w.in, x, ldx, y, ldy, accumulate, low_rank);
  q.bias = bias;
  const bool rows = w.dense != nullptr || w.decode != nullptr || w.packed == nullptr;
  if (rows && m <= (w.packed != nullptr ? 4 : 24)) {
    q.b = detail::operand_of(w, false);
    return detail::run_dots(q);
  }
  if (w.packed != nullptr) {
    q.b.form = Form::panels;
    q.b.data = w.packed->forward_panels();
  } else {
    q.b = detail::operand_of(w, false);
  }
  detail::run_product(q);
}

GRAFT_KERNEL void frozen_backward_input(const FrozenWeight& w, const float* dy, Index m, Index lddy,
                                        float* dx, Index lddx, bool accumulate,
                                        const LowRankTerm* low_rank) {
  if (m <= 0 || w.in <= 0) return;
  using Form = detail::RightOperand::Form;
  detail::Product q =
      detail::frozen_product(m, w.in, w.out, dy, lddy, dx, lddx, accumulate, low_rank);
  if (w.packed != nullptr && w.packed->has_backward()) {
    q.b.form = Form::panels;
    q.b.data = w.packed->backward_panels();
  } else if (w.dense != nullptr || w.decode != nullptr || w.packed == nullptr) {
    q.b = detail::operand_of(w, true);
  } else {
    q.b.form = Form::transposed_panels;
    q.b.data = w.packed->forward_panels();
    q.b.panel_k = w.in;
    q.b.panel_n = w.out;
    q.b.panel_depth = std::max<Index>(1, detail::block_depth(w.in, detail::kMaxDepth));
  }
  detail::run_product(q);
}

GRAFT_KERNEL void frozen_forward(const FrozenWeightDouble& w, const double* x, Index m, Index ldx,
                                 const double* bias, double* y, Index ldy, bool accumulate,
                                 const LowRankTermT<double>* low_rank) {
  gemm(false, true, m, w.out, w.in, 1.0, x, ldx, w.dense, w.row_stride, accumulate ? 1.0 : 0.0, y,
       ldy);
  if (bias != nullptr)
    for (Index i = 0; i < m; ++i)
      for (Index j = 0; j < w.out; ++j) y[i * ldy + j] += bias[j];
  detail::add_double_term(m, w.out, low_rank, y, ldy);
}

GRAFT_KERNEL void frozen_backward_input(const FrozenWeightDouble& w, const double* dy, Index m,
                                        Index lddy, double* dx, Index lddx, bool accumulate,
                                        const LowRankTermT<double>* low_rank) {
  gemm(false, false, m, w.in, w.out, 1.0, dy, lddy, w.dense, w.row_stride, accumulate ? 1.0 : 0.0,
       dx, lddx);
  detail::add_double_term(m, w.in, low_rank, dx, lddx);
}

}  // namespace graft::kernels
