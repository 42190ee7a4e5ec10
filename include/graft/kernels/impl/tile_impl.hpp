#pragma once

#include <cstdint>

#include "graft/kernels/impl/gemm_impl.hpp"
#include "graft/kernels/impl/tile_block.hpp"

/// Products of bf16 values with f32 sums by AMX tiles, or by their portable double.

namespace graft::inline v0_1::kernels::detail {

/// Rows from which tiles are worth it, unless B is packed for them.
inline constexpr Index kMinTileRows = 8;

inline bool has_tiles() { return active_isa() >= Isa::amx; }

/// A, and H with its parts beside each other, lie in shared scratch in tiles: [⌈m / 16⌉][⌈k /
/// 32⌉][16][16] words.
struct TileProduct : Product {
  const std::uint32_t* words = nullptr;  // A
  const std::uint32_t* term = nullptr;   // H
  Index k_tiles = 0, term_tiles = 0;
  Index a_low = 0, b_low = 0;  // how far behind the high parts the low ones lie
  bool split = false;
  bool ready = false;  // B is packed words
  Index tail_offset = 0, term_offset = 0, block_offset = 0;
  /// Panels of B as words, like fill_word_panels; not for split products.
  void (*fill)(const RightOperand& b, Index first_k, Index k, Index first_n, Index n,
               std::uint32_t* words, float* floats, float* decoded) noexcept = nullptr;
};

/// What a block begins with where C cannot be read as it is, with zeros beside C.
inline void fill_start(Index rows, Index cols, const float* c, Index ldc, const float* bias,
                       float* block) noexcept {
  for (Index i = 0; i < 2 * kTileSide; ++i) {
    for (Index j = 0; j < kPanel; ++j) {
      float v = 0.0f;
      if (i < rows && j < cols) {
        if (c != nullptr) v = c[i * ldc + j];
        if (bias != nullptr) v += bias[j];
      }
      block[i * kPanel + j] = v;
    }
  }
}

/// One task of the product: row_block × col_block elements of C, over all of k.
template <class Tiles>
void run_tile_task(const TileProduct& q, Index task, float* scratch) noexcept {
  const Index row0 = task / q.col_blocks() * q.row_block;
  const Index col0 = task % q.col_blocks() * q.col_block;
  const Index rows = std::min(q.row_block, q.m - row0);
  const Index cols = std::min(q.col_block, q.n - col0);
  auto* const panels = reinterpret_cast<std::uint32_t*>(scratch + q.panel_offset);
  auto* const term_panels = reinterpret_cast<std::uint32_t*>(scratch + q.term_offset);
  float* const block = scratch + q.block_offset;
  const Index padded_n = round_up(q.n, kPanel);
  if (q.rank > 0) {
    const auto fill = GRAFT_DISPATCH(fill_term_panel);
    for (Index j = 0; j < cols; j += kPanel)
      fill(q.p + col0 + j, q.ldp, q.rank, std::min(kPanel, cols - j), scratch + q.p_offset,
           term_panels + j * q.term_tiles * kTileSide);
  }
  const auto fill_split = GRAFT_DISPATCH(fill_split_panels);
  auto* const tails = reinterpret_cast<std::uint32_t*>(scratch + q.tail_offset);
  Tiles tiles;
  TileBlock t;
  t.a_low = q.a_low;
  t.b_low = q.b_low;
  t.tail_low = q.col_block * kTileSide;
  for (Index k0 = 0; k0 == 0 || k0 < q.k; k0 += q.depth) {
    const Index depth = std::min(q.depth, q.k - k0), pairs = ceil_div(depth, 2);
    const bool first = k0 == 0, last = k0 + depth >= q.k;
    if (q.split) {
      fill_split(q.b, k0, depth, col0, cols, panels, q.b_low, scratch + q.c_offset,
                 scratch + q.decode_offset);
    } else if (!q.ready) {
      q.fill(q.b, k0, depth, col0, cols, panels, scratch + q.c_offset, scratch + q.decode_offset);
    }
    const std::uint32_t* const right =
        q.ready ? q.b.words + k0 / 2 * padded_n + col0 * pairs : panels;
    t.steps = pairs / kTileSide;
    const Index rest = pairs % kTileSide;  // pairs of a step that is not whole
    for (Index j = 0; j < (rest > 0 ? cols : 0); j += kPanel) {
      for (Index part = 0; part < (q.split ? 2 : 1); ++part) {
        std::uint32_t* const tail = tails + j * kTileSide + part * t.tail_low;
        std::copy_n(right + part * q.b_low + j * pairs + t.steps * kStepWords, rest * kPanel, tail);
        std::fill_n(tail + rest * kPanel, (kTileSide - rest) * kPanel, 0u);
      }
    }
    t.term_steps = last && q.rank > 0 ? q.term_tiles : 0;
    for (Index r0 = 0; r0 < rows; r0 += q.inner_rows) {
      const Index inner = std::min(q.inner_rows, rows - r0);
      for (Index j = 0; j < cols; j += kPanel) {
        const Index width = std::min(kPanel, cols - j), col = col0 + j;
        t.b = right + j * pairs;
        t.tail = rest > 0 ? tails + j * kTileSide : nullptr;
        t.p = term_panels + j * q.term_tiles * kTileSide;
        const float* const bias = first && q.bias != nullptr ? q.bias + col : nullptr;
        for (Index i = 0; i < inner; i += 2 * kTileSide) {
          const Index height = std::min(2 * kTileSide, inner - i), row = row0 + r0 + i;
          const bool two = height > kTileSide;
          for (int s = 0; s < 2; ++s) {
            const Index row_tile = row / kTileSide + (two ? s : 0);
            t.a[s] = q.words + (row_tile * q.k_tiles + k0 / (2 * kTileSide)) * kTileWords;
            t.h[s] = q.term + row_tile * q.term_tiles * kTileWords;
          }
          float* const c = q.c + row * q.ldc + col;
          const float* const old = first && q.beta == 0.0f ? nullptr : c;
          const bool whole = width == kPanel && height % kTileSide == 0;
          t.from = old;
          t.from_stride = q.ldc;
          if (!whole || (old != nullptr && bias != nullptr)) {
            fill_start(height, width, old, q.ldc, bias, block);
            t.from = block;
            t.from_stride = kPanel;
          } else if (bias != nullptr) {
            t.from = bias;
            t.from_stride = 0;
          }
          t.to = whole ? c : block;
          t.to_stride = whole ? q.ldc : kPanel;
          if (q.split) {
            two ? run_tile_block<2, true>(tiles, t) : run_tile_block<1, true>(tiles, t);
          } else {
            two ? run_tile_block<2, false>(tiles, t) : run_tile_block<1, false>(tiles, t);
          }
          if (!whole)
            for (Index r = 0; r < height; ++r)
              std::copy_n(block + r * kPanel, width, c + r * q.ldc);
        }
      }
    }
  }
}

}  // namespace graft::inline v0_1::kernels::detail
