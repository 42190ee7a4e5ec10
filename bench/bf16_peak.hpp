#pragma once

#include "graft/kernels/impl/tiles.hpp"
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

/// Operations of a round of tile_peak.
inline constexpr Index kTileRound = 4 * 2 * 16 * 16 * 32;

/// Products of AMX tiles from registers: kTileRound · rounds operations.
inline float tile_peak(Index rounds) noexcept {
  alignas(64) float sums[16][16];
  kernels::detail::HardwareTiles tiles;
  tiles.zero<0>();
  tiles.zero<1>();
  tiles.zero<2>();
  tiles.zero<3>();
  tiles.zero<4>();
  tiles.zero<5>();
  tiles.zero<6>();
  tiles.zero<7>();
  for (Index round = 0; round < rounds; ++round) {
    tiles.dot<0, 4, 6>();
    tiles.dot<1, 4, 7>();
    tiles.dot<2, 5, 6>();
    tiles.dot<3, 5, 7>();
  }
  tiles.store<0>(sums, 16);
  return sums[0][0];
}
#endif

}  // namespace graft::bench
