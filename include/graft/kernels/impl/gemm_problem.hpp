#pragma once

#include <algorithm>
#if __has_include(<unistd.h>)
#include <unistd.h>
#endif

#include "graft/base/aligned_buffer.hpp"
#include "graft/base/thread_pool.hpp"
#include "graft/kernels/frozen_weight.hpp"
#include "graft/kernels/simd.hpp"

namespace graft::inline v0_1::kernels {

namespace detail {

/// Columns of a panel. Panels hold the right operand of a product as [k][32], whatever the
/// instruction set is.
inline constexpr Index kPanel = 32;
/// Largest depth of a panel; one panel then fills an eighth of a 1 MiB second-level cache.
inline constexpr Index kMaxDepth = 1024;
/// The same for panels of bf16 pairs.
inline constexpr Index kMaxPairDepth = 2048;
/// Rows up to which stored weights are multiplied by their own `dot`, not decoded first.
inline constexpr Index kMaxStoredDotRows = 8;
/// A decoder may start at any multiple of this, many at multiples of less.
inline constexpr Index kDecodeStep = 256;
/// Decoded rows on their way to a panel: not a multiple of 1 KiB apart, so that they do not share
/// cache sets.
inline constexpr Index kDecodeStride = kDecodeStep + 16;
inline constexpr Index kDecodeScratch = kPanel * kDecodeStride;

constexpr Index ceil_div(Index a, Index b) noexcept { return (a + b - 1) / b; }
constexpr Index round_up(Index a, Index b) noexcept { return ceil_div(a, b) * b; }

/// Depth of the blocks that `k` is cut into: equal ones, multiples of 256 unless there is only one.
constexpr Index block_depth(Index k, Index limit) noexcept {
  if (k <= limit) return k;
  return round_up(ceil_div(k, ceil_div(k, limit)), kDecodeStep);
}

/// Rows of a tile that the first-level cache holds if all fall into one of its sets: 8 or 12.
inline int rows_in_cache_set() noexcept {
#if defined(_SC_LEVEL1_DCACHE_ASSOC)
  static const int rows = ::sysconf(_SC_LEVEL1_DCACHE_ASSOC) >= 12 ? 12 : 8;
  return rows;
#else
  return 8;
#endif
}

/// Where the right operand B (k × n) of a product comes from.
struct RightOperand {
  enum class Form {
    panels,             // packed panels of B, ready to use
    k_rows,             // stored row-major with k rows
    n_rows,             // stored row-major with n rows: B transposed
    transposed_panels,  // packed panels of B transposed (n × k)
    words,              // packed panels of B as pairs of bf16 values
    transposed_words,   // the same of B transposed
  };
  Form form = Form::k_rows;
  const float* data = nullptr;  // f32 rows or panels
  Index stride = 0;
  const void* blocks = nullptr;  // or rows to decode
  Index row_bytes = 0, row_values = 0;
  Index decode_step = kDecodeStep;
  DecodeRow decode = nullptr;
  DecodePanel decode_panel = nullptr;
  DecodeColumns decode_columns = nullptr;
  DotRows dot = nullptr;
  DotInt8Rows dot_int8 = nullptr;
  const std::uint32_t* words = nullptr;  // or panels of bf16 pairs
  // Panels: depth of a block, and the size of the packed matrix.
  Index panel_depth = 0, panel_k = 0, panel_n = 0;
};

/// C = alpha · A B + beta · C + bias + H P, by tiles. A(i, l) is a[i · a_row + l · a_k].
struct Product {
  Index m = 0, n = 0, k = 0;
  const float* a = nullptr;
  Index a_row = 0, a_k = 1;
  const std::int8_t* codes = nullptr;  // A in 8 bits, for b.dot_int8: rows of k
  const float* pairs = nullptr;        // and of k / 16
  RightOperand b;
  float alpha = 1, beta = 0;
  const float* bias = nullptr;
  const float* h = nullptr;
  Index ldh = 0;
  const float* p = nullptr;
  Index ldp = 0;
  Index rank = 0;
  float* c = nullptr;
  Index ldc = 0;
  bool transpose_c = false;  // C(i, j) is c[j · ldc + i]

  // How it is cut.
  Index depth = 0;       // of a block of k
  Index row_block = 0;   // rows of C in a task
  Index col_block = 0;   // columns of C in a task
  Index inner_rows = 0;  // rows whose part of A stays in the cache while the panels of a task go by
  bool round = false;    // B is rounded to bf16 in its panels; A has been
  bool in_place = false;  // panels are read from k_rows without a copy
  // Scratch of a thread, in floats from its start.
  Index panel_offset = 0, decode_offset = 0, p_offset = 0, c_offset = 0, scratch = 0;

  Index row_blocks() const noexcept { return ceil_div(m, row_block); }
  Index col_blocks() const noexcept { return ceil_div(n, col_block); }
  double operations() const noexcept {
    return 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k);
  }
  Index tasks() const noexcept { return row_blocks() * col_blocks(); }
};

inline float* grow(AlignedBuffer<float>& buffer, Index count) {
  const auto wanted = static_cast<std::size_t>(count);
  if (buffer.size() < wanted) {
    buffer = AlignedBuffer<float>();
    buffer = AlignedBuffer<float>(wanted);
  }
  return buffer.data();
}

/// Scratch of the calling thread for its tasks: at least `count` floats; allocates only to grow.
inline float* thread_scratch(Index count) {
  static thread_local AlignedBuffer<float> buffer;
  return grow(buffer, count);
}
/// Scratch of a calling thread that the tasks of all threads read.
inline float* shared_scratch(Index count) {
  static thread_local AlignedBuffer<float> buffer;
  return grow(buffer, count);
}

/// Runs body(first, count) over blocks of rows, on all threads if there is enough to do.
template <class Body>
void for_row_blocks(Index rows, Index work, Body&& body) {
  constexpr Index kRows = 32;
  auto task = [&](Index block) { body(block * kRows, std::min(kRows, rows - block * kRows)); };
  const Index tasks = ceil_div(rows, kRows);
  if (work < 1 << 16) {
    for (Index block = 0; block < tasks; ++block) task(block);
  } else {
    ThreadPool::global().parallel_for(tasks, task);
  }
}

/// Runs `function(problem, task, scratch)` for all tasks; work of few operations stays in the
/// calling thread.
template <class Problem>
void run_tasks(const Problem& problem, void (*function)(const Problem&, Index, float*),
               double operations) {
  auto body = [&](Index task) { function(problem, task, thread_scratch(problem.scratch)); };
  const Index tasks = problem.tasks();
  if (operations < 5e5) {
    for (Index task = 0; task < tasks; ++task) body(task);
  } else {
    ThreadPool::global().parallel_for(tasks, body);
  }
}

}  // namespace detail
}  // namespace graft::inline v0_1::kernels
