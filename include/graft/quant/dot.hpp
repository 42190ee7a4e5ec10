#pragma once

#include "graft/kernels/frozen_weight.hpp"
#include "graft/kernels/isa.hpp"
#include "graft/quant/format.hpp"

namespace graft::inline v0_1::quant {

/// What multiplies a few rows with rows of `columns` values in `format` without writing decoded
/// weights to memory, for the instruction set that is active now; null where there is none and a
/// product has to decode: the formats are F16, BF16, Q4_0, Q4_1, Q8_0, Q4_K and Q6_K, the columns a
/// multiple of 32. The weights are the bits that `decode` gives; sums are in f32. Errors: those of
/// `kernels::active_isa`.
GRAFT_KERNEL kernels::DotRows row_dot(Format format, Index columns);

}  // namespace graft::inline v0_1::quant

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/quant/impl/dot_impl.hpp"
#endif
