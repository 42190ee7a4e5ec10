#pragma once

#include "graft/base/profile.hpp"
#include "graft/kernels/frozen.hpp"
#include "graft/kernels/impl/bf16_impl.hpp"
#include "graft/kernels/impl/gemm_impl.hpp"
#include "graft/kernels/impl/packed_weights_impl.hpp"

namespace graft::inline v0_1::kernels {
namespace detail {

template <class T>
void add_double_term(Index m, Index n, const LowRankTermT<T>* term, T* c, Index ldc) {
  if (term != nullptr && term->rank > 0)
    gemm(false, false, m, n, term->rank, T(1), term->h, term->ldh, term->p, term->ldp, T(1), c,
         ldc);
}

/// True if a product of m rows with w rounds them to 8 bits.
inline bool takes_int8(const FrozenWeight& w, Index m) noexcept {
  return w.dot_int8 != nullptr && w.dense == nullptr && m <= kMaxInt8Rows;
}

/// C (+)= A B + bias + H P with B = Wᵀ, or W in the backward direction.
inline void run_frozen(const FrozenWeight& w, bool backward, Index m, const float* a, Index lda,
                       const float* bias, float* c, Index ldc, bool accumulate,
                       const LowRankTerm* low_rank, Compute compute) {
  Product q;
  q.m = m;
  q.n = backward ? w.in : w.out;
  q.k = backward ? w.out : w.in;
  if (q.m <= 0 || q.n <= 0) return;
  const double md = static_cast<double>(q.m), nd = static_cast<double>(q.n),
               kd = static_cast<double>(q.k);
  const double rank = low_rank == nullptr ? 0 : static_cast<double>(low_rank->rank);
  const double weight_bytes = w.dense == nullptr && w.decode != nullptr
                                  ? static_cast<double>(w.row_bytes * w.out)
                                  : 4 * nd * kd;
  const ProfileScope profile(backward ? "frozen input gradient" : "frozen forward",
                             2 * md * nd * (kd + rank),
                             4 * md * (kd + (accumulate ? 2 : 1) * nd) + weight_bytes);
  q.a = a;
  q.a_row = lda;
  q.c = c;
  q.ldc = ldc;
  q.beta = accumulate ? 1.0f : 0.0f;
  q.bias = bias;
  if (low_rank != nullptr) {
    q.h = low_rank->h;
    q.ldh = low_rank->ldh;
    q.p = low_rank->p;
    q.ldp = low_rank->ldp;
    q.rank = low_rank->rank;
  }
  using Form = RightOperand::Form;
  const PackedWeights* const packed = w.packed;
  const bool rows = w.dense != nullptr || w.decode != nullptr || packed == nullptr;
  const bool words = packed != nullptr && packed->compute() == Compute::bf16;
  if (words && !rows) compute = Compute::bf16;
  // Panels of the other precision do not help a product that has rows.
  const bool fits = packed != nullptr && words == (compute == Compute::bf16);
  const bool tiles = compute != Compute::f32 && has_tiles();
  if (rows && !backward && (m <= (fits ? 4 : tiles ? 15 : 24) || takes_int8(w, m))) {
    q.b = operand_of(w, false);
    return takes_int8(w, m) ? run_int8_dots(&q, 1) : run_dots(q);
  }
  const bool ready = packed != nullptr && (!backward || packed->has_backward());
  if (rows && !(fits && ready)) {
    q.b = operand_of(w, backward);
  } else if (words) {
    q.b.form = ready ? Form::words : Form::transposed_words;
    q.b.words = ready && backward ? packed->backward_words() : packed->forward_words();
  } else {
    q.b.form = ready ? Form::panels : Form::transposed_panels;
    q.b.data = ready && backward ? packed->backward_panels() : packed->forward_panels();
  }
  // The size of the matrix that the panels were packed from.
  q.b.panel_k = ready ? q.k : q.n;
  q.b.panel_n = ready ? q.n : q.k;
  q.b.panel_depth = std::max<Index>(1, block_depth(q.b.panel_k, words ? kMaxPairDepth : kMaxDepth));
  if (compute == Compute::bf16) return run_bf16_product(q);
  if (tiles && m >= kMinTileRows) return run_tile_product(q, true);
  run_product(q);
}

}  // namespace detail

GRAFT_KERNEL bool bf16_is_fast() {
#if GRAFT_X86
  return active_isa() == Isa::amx ||
         (active_isa() == Isa::avx512_bf16 && detail::has_fast_bf16_dot());
#else
  return false;
#endif
}

GRAFT_KERNEL void frozen_forward(const FrozenWeight& w, const float* x, Index m, Index ldx,
                                 const float* bias, float* y, Index ldy, bool accumulate,
                                 const LowRankTerm* low_rank, Compute compute) {
  detail::run_frozen(w, false, m, x, ldx, bias, y, ldy, accumulate, low_rank, compute);
}

GRAFT_KERNEL void frozen_forward_each(const FrozenPart* parts, Index count, const float* x, Index m,
                                      Index ldx, Compute compute) {
  constexpr Index kMost = 4;
  bool together = m > 0 && count <= kMost;
  for (Index p = 0; p < count; ++p) together = together && detail::takes_int8(parts[p].w, m);
  if (!together) {
    for (Index p = 0; p < count; ++p)
      frozen_forward(parts[p].w, x, m, ldx, parts[p].bias, parts[p].y, parts[p].ldy, false, nullptr,
                     compute);
    return;
  }
  detail::Product list[kMost];
  double operations = 0, bytes = 0;
  for (Index p = 0; p < count; ++p) {
    const FrozenPart& part = parts[p];
    detail::Product& q = list[p];
    q.m = m;
    q.n = part.w.out;
    q.k = part.w.in;
    q.a = x;
    q.a_row = ldx;
    q.b = detail::operand_of(part.w, false);
    q.bias = part.bias;
    q.c = part.y;
    q.ldc = part.ldy;
    operations += q.operations();
    bytes += static_cast<double>(part.w.row_bytes * part.w.out + 4 * m * (q.n + q.k));
  }
  const ProfileScope profile("frozen forward", operations, bytes);
  detail::run_int8_dots(list, count);
}

GRAFT_KERNEL void frozen_backward_input(const FrozenWeight& w, const float* dy, Index m, Index lddy,
                                        float* dx, Index lddx, bool accumulate,
                                        const LowRankTerm* low_rank, Compute compute) {
  detail::run_frozen(w, true, m, dy, lddy, nullptr, dx, lddx, accumulate, low_rank, compute);
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

}  // namespace graft::inline v0_1::kernels
