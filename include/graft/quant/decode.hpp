#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "graft/base/types.hpp"
#include "graft/kernels/isa.hpp"
#include "graft/kernels/simd.hpp"
#include "graft/quant/half.hpp"

/// The decoders behind `graft/quant/format.hpp`, once for every instruction set.

namespace graft::inline v0_1::quant::detail {

using RowDecoder = void (*)(const void* row, Index first, Index count, float* out) noexcept;

/// One decoder for each instruction set.
struct DecoderSet {
  RowDecoder baseline;
  RowDecoder avx2;
  RowDecoder avx512;
};

inline RowDecoder pick_decoder(const DecoderSet& set) {
  using kernels::Isa;
  const Isa isa = kernels::vector_isa();
  return isa >= Isa::avx512 ? set.avx512 : isa == Isa::avx2 ? set.avx2 : set.baseline;
}

/// Values of the codes of IQ4_NL and IQ4_XS.
inline constexpr float kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                         1,    13,   25,  38,  53,  69,  89,  113};
/// Twice the values of the codes of MXFP4 (E2M1); the scale is halved in exchange.
inline constexpr float kMxfp4Values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/// 2^(exponent − 128): half of an E8M0 scale.
inline float half_e8m0(std::uint8_t exponent) {
  const std::uint32_t bits =
      exponent < 2 ? 0x0020'0000U << exponent : static_cast<std::uint32_t>(exponent - 1) << 23;
  return std::bit_cast<float>(bits);
}

}  // namespace graft::inline v0_1::quant::detail

#define GRAFT_FOREACH_FILE "graft/quant/impl/decode_blocks.hpp"
#include "graft/kernels/impl/foreach_isa.hpp"

/// function<walk> of the instruction set `isa`; the walk is a type of that set's namespace.
#if GRAFT_X86
#define GRAFT_QUANT_PICK(function, ...)                                                 \
  (isa >= kernels::Isa::avx512 ? &detail::avx512::function<detail::avx512::__VA_ARGS__> \
   : isa == kernels::Isa::avx2 ? &detail::avx2::function<detail::avx2::__VA_ARGS__>     \
                               : &detail::baseline::function<detail::baseline::__VA_ARGS__>)
#else
#define GRAFT_QUANT_PICK(function, ...) (&detail::baseline::function<detail::baseline::__VA_ARGS__>)
#endif

#if GRAFT_X86
#define GRAFT_QUANT_DECODERS(function) \
  { &baseline::function, &avx2::function, &avx512::function }
#else
#define GRAFT_QUANT_DECODERS(function) \
  { &baseline::function, &baseline::function, &baseline::function }
#endif
