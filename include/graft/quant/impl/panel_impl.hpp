#pragma once

#include "graft/kernels/impl/gemm_problem.hpp"
#include "graft/quant/panel.hpp"

#define GRAFT_FOREACH_FILE "graft/quant/impl/panel_blocks.hpp"
#include "graft/kernels/impl/foreach_isa.hpp"

namespace graft::inline v0_1::quant {

#define GRAFT_PANEL_DECODER(Decode, name, decoder)                   \
  GRAFT_KERNEL kernels::Decode name(Format format) {                 \
    [[maybe_unused]] const kernels::Isa isa = kernels::vector_isa(); \
    switch (format) {                                                \
      case Format::q4_0:                                             \
        return GRAFT_QUANT_PICK(decoder, PanelQ40);                  \
      case Format::q4_1:                                             \
        return GRAFT_QUANT_PICK(decoder, PanelQ41);                  \
      case Format::q8_0:                                             \
        return GRAFT_QUANT_PICK(decoder, PanelQ80);                  \
      case Format::iq4_nl:                                           \
        return GRAFT_QUANT_PICK(decoder, PanelIq4Nl);                \
      default:                                                       \
        return nullptr;                                              \
    }                                                                \
  }

GRAFT_PANEL_DECODER(DecodePanel, panel_decoder, decode_panel)
GRAFT_PANEL_DECODER(DecodeColumns, column_decoder, decode_columns)
#undef GRAFT_PANEL_DECODER

}  // namespace graft::inline v0_1::quant
