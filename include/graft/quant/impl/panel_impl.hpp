#pragma once

#include "graft/kernels/impl/gemm_problem.hpp"
#include "graft/quant/panel.hpp"

#define GRAFT_FOREACH_FILE "graft/quant/impl/panel_blocks.hpp"
#include "graft/kernels/impl/foreach_isa.hpp"

namespace graft::inline v0_1::quant {

#if GRAFT_X86
#define GRAFT_QUANT_PANEL(block)                                                            \
  return isa >= kernels::Isa::avx512 ? &detail::avx512::decode_panel<detail::avx512::block> \
         : isa == kernels::Isa::avx2 ? &detail::avx2::decode_panel<detail::avx2::block>     \
                                     : &detail::baseline::decode_panel<detail::baseline::block>
#else
#define GRAFT_QUANT_PANEL(block) return &detail::baseline::decode_panel<detail::baseline::block>
#endif

GRAFT_KERNEL kernels::DecodePanel panel_decoder(Format format) {
  [[maybe_unused]] const kernels::Isa isa = kernels::vector_isa();
  switch (format) {
    case Format::q4_0:
      GRAFT_QUANT_PANEL(PanelQ40);
    case Format::q4_1:
      GRAFT_QUANT_PANEL(PanelQ41);
    case Format::q8_0:
      GRAFT_QUANT_PANEL(PanelQ80);
    case Format::iq4_nl:
      GRAFT_QUANT_PANEL(PanelIq4Nl);
    default:
      return nullptr;
  }
}

#undef GRAFT_QUANT_PANEL

}  // namespace graft::inline v0_1::quant
