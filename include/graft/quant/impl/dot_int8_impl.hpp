#pragma once

#include "graft/kernels/impl/int8_row_impl.hpp"
#include "graft/quant/dot_int8.hpp"
#include "graft/quant/impl/dot_impl.hpp"

#define GRAFT_FOREACH_FILE "graft/quant/impl/dot_int8_blocks.hpp"
#include "graft/kernels/impl/foreach_isa.hpp"

namespace graft::inline v0_1::quant {

GRAFT_KERNEL kernels::DotInt8Rows int8_dot(Format format, Index columns) {
  [[maybe_unused]] kernels::Isa isa = kernels::vector_isa();
#if GRAFT_X86
  if (isa >= kernels::Isa::avx512 && !__builtin_cpu_supports("avx512vnni"))
    isa = kernels::Isa::avx2;
#endif
  if (columns % format_info(format).block_elements != 0) return nullptr;
  switch (format) {
    case Format::q4_0:
      return GRAFT_QUANT_PICK(dot_int8, Int8Nibbles<18, 2, 8, false>);
    case Format::q4_1:
      return GRAFT_QUANT_PICK(dot_int8, Int8Nibbles<20, 4, 0, false>);
    case Format::q5_0:
      return GRAFT_QUANT_PICK(dot_int8, Int8Nibbles<22, 6, 16, true>);
    case Format::q5_1:
      return GRAFT_QUANT_PICK(dot_int8, Int8Nibbles<24, 8, 0, true>);
    case Format::q8_0:
      return GRAFT_QUANT_PICK(dot_int8, Int8Bytes);
    case Format::q4_k:
      return GRAFT_QUANT_PICK(dot_int8, Int8SuperBlock<144, false>);
    case Format::q5_k:
      return GRAFT_QUANT_PICK(dot_int8, Int8SuperBlock<176, true>);
    case Format::q6_k:
      return GRAFT_QUANT_PICK(dot_int8, Int8SixBits);
    default:
      return nullptr;
  }
}

}  // namespace graft::inline v0_1::quant
