#pragma once

#include "graft/layers/low_rank_product.hpp"

namespace graft::inline v0_1::detail {

GRAFT_KERNEL kernels::LowRankTerm kernel_term(const LowRankProduct<float>* term) {
  if (term == nullptr) return {};
  return {term->h.data(), term->h.row_stride(), term->p.data(), term->p.row_stride(),
          term->h.cols()};
}

template <std::floating_point T>
void add_low_rank(const LowRankProduct<T>* term, MatrixView<T> y) {
  if (term == nullptr) return;
  kernels::gemm(false, false, y.rows(), y.cols(), term->h.cols(), T{1}, term->h.data(),
                term->h.row_stride(), term->p.data(), term->p.row_stride(), T{1}, y.data(),
                y.row_stride());
}

#if defined(GRAFT_KERNELS_IMPLEMENTATION)
#define GRAFT_INSTANTIATE(T) template void add_low_rank(const LowRankProduct<T>*, MatrixView<T>);
GRAFT_INSTANTIATE(float)
GRAFT_INSTANTIATE(double)
#undef GRAFT_INSTANTIATE
#endif

}  // namespace graft::inline v0_1::detail
