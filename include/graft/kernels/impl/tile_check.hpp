#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

#include "graft/kernels/impl/tile_block.hpp"

namespace graft::inline v0_1::kernels::detail {

/// A block of small whole numbers, whose sums are exact in any order: 32 × 32 with 64 and 32 terms.
struct TileProbe {
  alignas(64) std::uint32_t a[2][2 * kTileWords];
  alignas(64) std::uint32_t b[2 * kStepWords];
  alignas(64) float bias[kPanelWords];
  alignas(64) float sums[2 * kTileSide][kPanelWords + 16];

  TileProbe() noexcept {
    std::uint32_t state = 1;
    // −8 … 7 as the upper half of an f32.
    const auto next = [&state] {
      state = state * 1664525u + 1013904223u;
      const float v = static_cast<float>(static_cast<int>(state >> 28) - 8);
      return std::bit_cast<std::uint32_t>(v) >> 16;
    };
    for (auto& rows : a)
      for (auto& word : rows) word = next() | next() << 16;
    for (auto& word : b) word = next() | next() << 16;
    for (float& v : bias) v = std::bit_cast<float>(next() << 16);
    std::memset(sums, 0, sizeof sums);
  }

  template <class Tiles>
  void run() noexcept {
    TileBlock t;
    t.a[0] = a[0];
    t.a[1] = a[1];
    t.b = b;
    t.steps = 2;
    t.h[0] = a[1];
    t.h[1] = a[0];
    t.p = b;
    t.term_steps = 1;
    t.from = bias;
    t.from_stride = 0;
    t.to = sums[0];
    t.to_stride = kPanelWords + 16;
    Tiles tiles;
    run_tile_block<2, false>(tiles, t);
  }
};

/// True if both kinds of tiles give the same sums.
template <class Tiles, class Reference = PortableTiles>
bool tiles_agree() noexcept {
  TileProbe expected, here;
  expected.run<Reference>();
  here.run<Tiles>();
  return std::memcmp(expected.sums, here.sums, sizeof here.sums) == 0;
}

}  // namespace graft::inline v0_1::kernels::detail
