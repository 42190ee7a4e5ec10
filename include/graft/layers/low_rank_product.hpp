#pragma once

#include "graft/kernels/frozen_weight.hpp"
#include "graft/kernels/gemm.hpp"
#include "graft/layers/concepts.hpp"

namespace graft::inline v0_1::detail {

/// A low-rank product as the kernels of frozen weights take it; nothing for a null term.
GRAFT_KERNEL kernels::LowRankTerm kernel_term(const LowRankProduct<float>* term);

/// y += h p, for layers whose own product cannot take the term in; nothing for a null term.
template <std::floating_point T>
void add_low_rank(const LowRankProduct<T>* term, MatrixView<T> y);

}  // namespace graft::inline v0_1::detail

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/layers/impl/low_rank_product_impl.hpp"
#endif
