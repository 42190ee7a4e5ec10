#pragma once

#include <cstdint>

#include "graft/kernels/impl/tiles.hpp"

namespace graft::inline v0_1::kernels::detail {

/// Up to 32 × 32 elements of a product, one or two tiles high and two wide.
///
/// A lies in tiles, one behind the other along k; B in panels of [pair of k][32] words. Each holds
/// the high parts of its values, and in a split product the low ones a distance further on.
struct TileBlock {
  const std::uint32_t* a[2] = {};
  Index a_low = 0;
  const std::uint32_t* b = nullptr;
  Index b_low = 0;
  Index steps = 0;                      // of 16 pairs
  const std::uint32_t* tail = nullptr;  // panel of one more step, or null
  Index tail_low = 0;
  const std::uint32_t* h[2] = {};  // the term that is added, by the same layouts
  const std::uint32_t* p = nullptr;
  Index term_steps = 0;
  const float* from = nullptr;  // what the sums begin with, or null for zero
  Index from_stride = 0;
  float* to = nullptr;
  Index to_stride = 0;
};

inline constexpr Index kPanelWords = 32;                      // of a row of a panel
inline constexpr Index kStepWords = kTileSide * kPanelWords;  // of a panel, for one step

// Tiles 0 … 3 are sums, 4 and 5 hold A, 6 and 7 hold B.
template <int kRowTiles, class Tiles>
__attribute__((always_inline)) inline void load_left(Tiles& tiles, const std::uint32_t* first,
                                                     const std::uint32_t* second) noexcept {
  tiles.template load<4>(first, kTileSide);
  if constexpr (kRowTiles == 2) tiles.template load<5>(second, kTileSide);
}
template <class Tiles>
__attribute__((always_inline)) inline void load_right(Tiles& tiles,
                                                      const std::uint32_t* panel) noexcept {
  tiles.template load<6>(panel, kPanelWords);
  tiles.template load<7>(panel + kTileSide, kPanelWords);
}
template <int kRowTiles, class Tiles>
__attribute__((always_inline)) inline void add_products(Tiles& tiles) noexcept {
  tiles.template dot<0, 4, 6>();
  tiles.template dot<1, 4, 7>();
  if constexpr (kRowTiles == 2) {
    tiles.template dot<2, 5, 6>();
    tiles.template dot<3, 5, 7>();
  }
}

/// One step along k: A B, or with kSplit low · high + high · high + high · low.
template <int kRowTiles, bool kSplit, class Tiles>
__attribute__((always_inline)) inline void run_tile_step(Tiles& tiles, const std::uint32_t* first,
                                                         const std::uint32_t* second, Index a_low,
                                                         const std::uint32_t* panel,
                                                         Index b_low) noexcept {
  if constexpr (kSplit) {
    load_left<kRowTiles>(tiles, first + a_low, second + a_low);
    load_right(tiles, panel);
    add_products<kRowTiles>(tiles);
    load_left<kRowTiles>(tiles, first, second);
    add_products<kRowTiles>(tiles);
    load_right(tiles, panel + b_low);
    add_products<kRowTiles>(tiles);
  } else {
    load_left<kRowTiles>(tiles, first, second);
    load_right(tiles, panel);
    add_products<kRowTiles>(tiles);
  }
}

/// The sum of a block of a product; kRowTiles is 1 or 2, and the second row tile of A is read only
/// with 2.
template <int kRowTiles, bool kSplit, class Tiles>
inline void run_tile_block(Tiles& tiles, const TileBlock& t) noexcept {
  if (t.from == nullptr) {
    tiles.template zero<0>();
    tiles.template zero<1>();
    if constexpr (kRowTiles == 2) {
      tiles.template zero<2>();
      tiles.template zero<3>();
    }
  } else {
    tiles.template load<0>(t.from, t.from_stride);
    tiles.template load<1>(t.from + kTileSide, t.from_stride);
    if constexpr (kRowTiles == 2) {
      const float* const lower = t.from + kTileSide * t.from_stride;
      tiles.template load<2>(lower, t.from_stride);
      tiles.template load<3>(lower + kTileSide, t.from_stride);
    }
  }
  const std::uint32_t* first = t.a[0];
  const std::uint32_t* second = t.a[1];
  const std::uint32_t* panel = t.b;
  for (Index step = 0; step < t.steps; ++step) {
    run_tile_step<kRowTiles, kSplit>(tiles, first, second, t.a_low, panel, t.b_low);
    first += kTileWords;
    second += kTileWords;
    panel += kStepWords;
  }
  if (t.tail != nullptr)
    run_tile_step<kRowTiles, kSplit>(tiles, first, second, t.a_low, t.tail, t.tail_low);
  for (Index step = 0; step < t.term_steps; ++step)
    run_tile_step<kRowTiles, false>(tiles, t.h[0] + step * kTileWords, t.h[1] + step * kTileWords,
                                    0, t.p + step * kStepWords, 0);
  tiles.template store<0>(t.to, t.to_stride);
  tiles.template store<1>(t.to + kTileSide, t.to_stride);
  if constexpr (kRowTiles == 2) {
    float* const lower = t.to + kTileSide * t.to_stride;
    tiles.template store<2>(lower, t.to_stride);
    tiles.template store<3>(lower + kTileSide, t.to_stride);
  }
}

}  // namespace graft::inline v0_1::kernels::detail
