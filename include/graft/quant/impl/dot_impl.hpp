#pragma once

#include <algorithm>
#include <cstdint>

#include "graft/kernels/gemm.hpp"
#include "graft/quant/dot.hpp"

#define GRAFT_FOREACH_FILE "graft/quant/impl/dot_blocks.hpp"
#include "graft/kernels/impl/foreach_isa.hpp"

namespace graft::inline v0_1::quant {

#if GRAFT_X86
#define GRAFT_QUANT_DOT(walk)                                                     \
  return isa >= kernels::Isa::avx512 ? &detail::avx512::dot<detail::avx512::walk> \
         : isa == kernels::Isa::avx2 ? &detail::avx2::dot<detail::avx2::walk>     \
                                     : &detail::baseline::dot<detail::baseline::walk>
#else
#define GRAFT_QUANT_DOT(walk) return &detail::baseline::dot<detail::baseline::walk>
#endif

GRAFT_KERNEL kernels::DotRows row_dot(Format format, Index columns) {
  [[maybe_unused]] const kernels::Isa isa = kernels::vector_isa();
  if (columns % 32 != 0) return nullptr;
  switch (format) {
    case Format::f16:
      GRAFT_QUANT_DOT(DotF16);
    case Format::bf16:
      GRAFT_QUANT_DOT(DotBf16);
    case Format::q4_0:
      GRAFT_QUANT_DOT(DotQ40);
    case Format::q4_1:
      GRAFT_QUANT_DOT(DotQ41);
    case Format::q8_0:
      GRAFT_QUANT_DOT(DotQ80);
    case Format::q4_k:
      GRAFT_QUANT_DOT(DotQ4K);
    case Format::q6_k:
      GRAFT_QUANT_DOT(DotQ6K);
    default:
      return nullptr;
  }
}

#undef GRAFT_QUANT_DOT

}  // namespace graft::inline v0_1::quant
