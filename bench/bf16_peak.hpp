#pragma once

#include "graft/kernels/isa.hpp"

namespace graft::bench {

#if GRAFT_X86
/// Dot products of bf16 pairs from registers: 24 · 64 · rounds operations.
__attribute__((target("avx512f,avx512bf16"))) inline float bf16_peak(Index rounds) noexcept {
  typedef float Floats __attribute__((vector_size(64)));
  Floats sums[24] = {}, pairs = {};
  for (Index round = 0; round < rounds; ++round) {
#pragma GCC unroll 24
    for (int i = 0; i < 24; ++i) asm volatile("vdpbf16ps %1, %1, %0" : "+v"(sums[i]) : "v"(pairs));
  }
  Floats sum = sums[0];
#pragma GCC unroll 24
  for (int i = 1; i < 24; ++i) sum += sums[i];
  return sum[0];
}
#endif

}  // namespace graft::bench
