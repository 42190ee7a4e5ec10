#pragma once

#include "graft/kernels/frozen_weight.hpp"
#include "graft/kernels/isa.hpp"
#include "graft/quant/format.hpp"

namespace graft::inline v0_1::quant {

/// What decodes 32 stored rows in `format` straight into the panels that products read, for the
/// instruction set that is active now; null where there is none and rows are decoded one by one and
/// transposed: the formats are Q4_0, Q4_1, Q8_0 and IQ4_NL. The values are the bits that `decode`
/// gives. Errors: those of `kernels::active_isa`.
GRAFT_KERNEL kernels::DecodePanel panel_decoder(Format format);

/// The same for 32 columns of stored rows, by kernels::FrozenWeight::decode_columns.
GRAFT_KERNEL kernels::DecodeColumns column_decoder(Format format);

}  // namespace graft::inline v0_1::quant

#if !defined(GRAFT_KERNELS_COMPILED)
#include "graft/quant/impl/panel_impl.hpp"
#endif
