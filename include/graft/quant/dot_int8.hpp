#pragma once

#include "graft/kernels/int8_row.hpp"
#include "graft/quant/format.hpp"

namespace graft::inline v0_1::quant {

/// What multiplies a row of activations in 8 bits with stored rows of `columns` values in `format`,
/// for the instruction set that is active now; null where there is none: the formats are Q4_0,
/// Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K and Q6_K.
///
/// Within a block (or a part of one with a scale of its own) codes are multiplied and summed as
/// integers, which is exact and the same everywhere; the sums are scaled and added in f32, four
/// partial sums a row, in an order that depends on no width. So AVX2 and AVX-512 differ from the
/// baseline only by their fused multiply-adds, by less than 2⁻²⁰ Σ |s q w|. The weights are those
/// that `decode` gives; beside the rounding of the activations nothing is lost. AVX-512 needs VNNI
/// here (vpdpbusd), else what AVX2 has (vpmaddubsw) runs. Errors: those of `kernels::active_isa`.
GRAFT_KERNEL kernels::DotInt8Rows int8_dot(Format format, Index columns);

}  // namespace graft::inline v0_1::quant

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/quant/impl/dot_int8_impl.hpp"
#endif
