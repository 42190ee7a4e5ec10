#pragma once

#include <cstdint>

#include "graft/kernels/impl/gemm_impl.hpp"
#include "graft/kernels/impl/tile_impl.hpp"

namespace graft::inline v0_1::kernels::detail {

/// A product of bf16 values. A and H lie in shared scratch, with a row behind the last that may be
/// read.
struct Bf16Product : Product {
  const std::uint32_t* words = nullptr;  // A, two values a word
  Index word_stride = 0;
  bool ready = false;  // B is packed words
};

/// Words from a row of k values to the next one: no multiple of 1 KiB, which keeps the rows of a
/// tile in different cache sets.
constexpr Index word_stride(Index k) noexcept {
  const Index stride = round_up(ceil_div(k, 2), 16);
  return stride % 256 == 0 ? stride + 16 : stride;
}

}  // namespace graft::inline v0_1::kernels::detail

#if GRAFT_X86
#define GRAFT_SIMD_NS avx512_bf16
#define GRAFT_SIMD_BYTES 64
#define GRAFT_SIMD_TARGET \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma,avx2")))
#include "graft/kernels/impl/bf16_kernels.hpp"
#undef GRAFT_SIMD_NS
#undef GRAFT_SIMD_BYTES
#undef GRAFT_SIMD_TARGET
#endif

namespace graft::inline v0_1::kernels::detail {

#if GRAFT_X86
/// Dot products of bf16 pairs are worth it where they are twice as fast as f32: on AMD's cores they
/// are, on the Intel cores measured so far they have half the speed of f32.
inline bool has_fast_bf16_dot() noexcept {
  return vector_isa() == Isa::avx512_bf16 && __builtin_cpu_is("amd");
}

inline void run_pair_product(const Product& product) {
  Bf16Product q{product};
  q.ready = q.b.form == RightOperand::Form::words;
  q.depth = std::max<Index>(1, block_depth(q.k, kMaxPairDepth));
  plan_blocks(q, q.ready, q.ready ? 8 : 4);
  q.word_stride = word_stride(q.k);
  const Index rank_stride = round_up(q.rank, 16);
  Index offset = 0;
  auto take = [&offset](Index count) {
    const Index start = offset;
    offset += round_up(count, 16);
    return start;
  };
  q.panel_offset = take(q.ready ? 0 : q.col_block * ceil_div(q.depth, 2));
  q.c_offset = take(q.ready ? 0 : q.col_block * kDecodeStep);
  q.decode_offset = take(q.ready ? 0 : kDecodeScratch);
  q.p_offset = take(q.rank * kPanel);
  q.scratch = offset;

  float* const h = shared_scratch((q.m + 1) * (q.word_stride + rank_stride));
  auto* const words = reinterpret_cast<std::uint32_t*>(h + (q.m + 1) * rank_stride);
  for_row_blocks(q.m, q.m * q.k, [&](Index first, Index count) {
    avx512_bf16::round_rows(product.a + first * product.a_row, product.a_row, count, product.k,
                            words + first * q.word_stride, q.word_stride);
    for (Index i = first; i < (product.rank > 0 ? first + count : 0); ++i)
      std::copy_n(product.h + i * product.ldh, product.rank, h + i * rank_stride);
  });
  std::fill_n(words + q.m * q.word_stride, q.word_stride, 0u);
  std::fill_n(h + q.m * rank_stride, rank_stride, 0.0f);
  q.words = words;
  q.h = h;
  q.ldh = rank_stride;
  run_tasks(q, &avx512_bf16::run_pair_task, q.operations());
}
#endif

/// C (+)= A B + bias + H P for a_k 1, beta 0 or 1 and any form of B: A and B rounded to bf16, or
/// split.
inline void run_tile_product(const Product& product, bool split) {
  TileProduct q{product};
  q.split = split;
  q.ready = !split && q.b.form == RightOperand::Form::words;
  q.depth = std::max<Index>(1, block_depth(q.k, split ? kMaxDepth : kMaxPairDepth));
  plan_blocks(q, q.ready, q.ready ? 8 : 4, true);
  const Index parts = split ? 2 : 1;
  q.k_tiles = ceil_div(q.k, 2 * kTileSide);
  q.term_tiles = ceil_div(3 * q.rank, 2 * kTileSide);
  Index offset = 0;
  auto take = [&offset](Index count) {
    const Index start = offset;
    offset += round_up(count, 16);
    return start;
  };
  q.b_low = split ? q.col_block * ceil_div(q.depth, 2) : 0;
  q.panel_offset = take(q.ready ? 0 : parts * q.col_block * ceil_div(q.depth, 2));
  q.tail_offset = take(parts * q.col_block * kTileSide);
  q.c_offset = take(q.ready ? 0 : q.col_block * kDecodeStep);
  q.decode_offset = take(q.ready ? 0 : kDecodeScratch);
  q.p_offset = take(3 * q.rank * kPanel);
  q.term_offset = take(q.col_block * q.term_tiles * kTileSide);
  q.block_offset = take(2 * kTileSide * kPanel);
  q.scratch = offset;

  const Index row_tiles = ceil_div(q.m, kTileSide);
  const Index a_words = row_tiles * q.k_tiles * kTileWords;
  q.a_low = split ? a_words : 0;
  auto* const words = reinterpret_cast<std::uint32_t*>(
      shared_scratch(parts * a_words + row_tiles * q.term_tiles * kTileWords));
  std::uint32_t* const term = words + parts * a_words;
  auto pack = GRAFT_DISPATCH(pack_tile_rows);
  q.fill = GRAFT_DISPATCH(fill_word_panels);
#if GRAFT_X86
  if (vector_isa() == Isa::avx512_bf16) {
    q.fill = &avx512_bf16::fill_pair_panels;
    if (!split) pack = &avx512_bf16::pack_tile_pairs;
  }
#endif
  const auto pack_term = GRAFT_DISPATCH(pack_term_rows);
  for_row_blocks(q.m, q.m * q.k, [&](Index first, Index count) {
    for (Index i = first; i < first + count; i += kTileSide) {
      const Index here = std::min(kTileSide, first + count - i);
      pack(q.a + i * q.a_row, q.a_row, here, q.k, words + i / kTileSide * q.k_tiles * kTileWords,
           q.a_low);
      if (q.rank > 0)
        pack_term(q.h + i * q.ldh, q.ldh, here, q.rank, thread_scratch(kTileSide * 3 * q.rank),
                  term + i / kTileSide * q.term_tiles * kTileWords);
    }
  });
  q.words = words;
  q.term = term;
#if GRAFT_X86
  if (active_isa() == Isa::amx) return run_tasks(q, &run_tile_task<HardwareTiles>, q.operations());
#endif
  run_tasks(q, &run_tile_task<PortableTiles>, q.operations());
}

/// C (+)= A B + bias + H P with A and B rounded to bf16, for a_k 1 and any form of B.
inline void run_bf16_product(Product& q) {
  using Form = RightOperand::Form;
  if (has_tiles() && (q.m >= kMinTileRows || q.b.form == Form::words))
    return run_tile_product(q, false);
#if GRAFT_X86
  if (has_fast_bf16_dot()) return run_pair_product(q);
#endif
  // Elsewhere, f32 products of rounded values.
  const Index stride = round_up(q.k, 16) + 16;
  float* const rounded = shared_scratch(q.m * stride);
  const auto round = GRAFT_DISPATCH(round_values);
  for_row_blocks(q.m, q.m * q.k, [&](Index first, Index count) {
    for (Index i = first; i < first + count; ++i)
      round(q.a + i * q.a_row, q.k, rounded + i * stride);
  });
  Product product = q;
  product.a = rounded;
  product.a_row = stride;
  product.round = true;
  run_product(product);
}

/// All panels of B (k × n) as words.
inline AlignedBuffer<std::uint32_t> pack_word_panels(const RightOperand& b, Index k, Index n) {
  const Index padded = round_up(n, kPanel);
  // Some room behind the last panel, where the next one would be fetched from.
  AlignedBuffer<std::uint32_t> panels(
      static_cast<std::size_t>(std::max<Index>(1, ceil_div(k, 2)) * padded + kPanel));
  const Index depth = std::max<Index>(1, block_depth(k, kMaxPairDepth));
  const Index groups = ceil_div(n, kDecodeStep);
  const auto fill = GRAFT_DISPATCH(fill_word_panels);
  ThreadPool::global().parallel_for(groups * ceil_div(k, depth), [&](Index task) {
    const Index first_n = task % groups * kDecodeStep;
    const Index first_k = task / groups * depth;
    const Index here = std::min(depth, k - first_k);
    float* const scratch = thread_scratch(kDecodeStep * kDecodeStep + kDecodeScratch);
    fill(b, first_k, here, first_n, std::min(kDecodeStep, n - first_n),
         panels.data() + first_k / 2 * padded + first_n * ceil_div(here, 2), scratch,
         scratch + kDecodeStep * kDecodeStep);
  });
  return panels;
}

}  // namespace graft::inline v0_1::kernels::detail
