#pragma once

#include "graft/kernels/int8_row.hpp"
#include "graft/kernels/simd.hpp"

#define GRAFT_FOREACH_FILE "graft/kernels/impl/int8_row_kernels.hpp"
#include "graft/kernels/impl/foreach_isa.hpp"

namespace graft::inline v0_1::kernels {

GRAFT_KERNEL void quantise_int8_row(const float* x, Index n, std::int8_t* codes, float* pairs) {
  GRAFT_DISPATCH(quantise_int8_row)(x, n, codes, pairs);
}

}  // namespace graft::inline v0_1::kernels
