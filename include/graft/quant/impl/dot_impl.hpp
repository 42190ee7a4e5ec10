#pragma once

#include <algorithm>
#include <cstdint>

#include "graft/kernels/gemm.hpp"
#include "graft/quant/dot.hpp"

#define GRAFT_FOREACH_FILE "graft/quant/impl/dot_blocks.hpp"
#include "graft/kernels/impl/foreach_isa.hpp"

namespace graft::inline v0_1::quant {

GRAFT_KERNEL kernels::DotRows row_dot(Format format, Index columns) {
  [[maybe_unused]] const kernels::Isa isa = kernels::vector_isa();
  if (columns % 32 != 0) return nullptr;
  switch (format) {
    case Format::f16:
      return GRAFT_QUANT_PICK(dot, DotF16);
    case Format::bf16:
      return GRAFT_QUANT_PICK(dot, DotBf16);
    case Format::q4_0:
      return GRAFT_QUANT_PICK(dot, DotQ40);
    case Format::q4_1:
      return GRAFT_QUANT_PICK(dot, DotQ41);
    case Format::q8_0:
      return GRAFT_QUANT_PICK(dot, DotQ80);
    case Format::q4_k:
      return GRAFT_QUANT_PICK(dot, DotQ4K);
    case Format::q6_k:
      return GRAFT_QUANT_PICK(dot, DotQ6K);
    default:
      return nullptr;
  }
}

}  // namespace graft::inline v0_1::quant
